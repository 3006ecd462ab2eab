"""NAdam: Adam that looks ahead along its momentum, as Nesterov's method does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, nonnegative_or_infinite
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@rule
def nadam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, along_m, along_g, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * (along_m * m + along_g * g) / (np.sqrt(v) * debias_root_v + eps), m, v


def _mu(hyper: Mapping[str, Any], t: int) -> float:
    """The momentum of step t."""
    beta1, decay = float(hyper["betas"][0]), float(hyper["momentum_decay"])
    return beta1 * (1.0 - 0.5 * math.pow(0.96, t * decay))


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's momentum, as Dozat and PyTorch have it.

    .. math::

        \mu_t &= \beta_1 \bigl(1 - \tfrac12\, 0.96^{t \psi}\bigr) \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g \odot g \\
        \hat m &= \frac{\mu_{t+1}\, m}{1 - \prod_{i=1}^{t+1} \mu_i} + \frac{(1 - \mu_t)\, g}{1 - \prod_{i=1}^{t} \mu_i},
        \qquad \hat v = v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 2e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.999)
        Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, outside of the root.
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    momentum_decay : float, default 4e-3
        :math:`\psi`, at least 0: how fast :math:`\mu_t` grows to :math:`\beta_1`. With ``math.inf`` it is
        :math:`\beta_1` from the start, as in optax.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"m"`` and ``"v"``, the averages of the gradient and of its square, uncorrected; both start at 0. A running
    scalar, ``"mu_product"``: the product of all :math:`\mu_i` so far.

    References
    ----------
    .. [1] Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.NAdam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.471774, 2.528226])
    """

    checks: ClassVar[Mapping[str, Check]] = {**Optimizer.checks, "momentum_decay": nonnegative_or_infinite}
    scalars: ClassVar[Mapping[str, float]] = {"mu_product": 1.0}

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return nadam, ("m", "v")

    def advance(self, hyper: Mapping[str, Any], t: int, sums: Sequence[Any]) -> Mapping[str, Any]:
        return {"mu_product": hyper["mu_product"] * _mu(hyper, t)}

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        mu, mu_next, product = _mu(hyper, t), _mu(hyper, t + 1), hyper["mu_product"]
        along_m, along_g = mu_next / (1.0 - product * mu_next), (1.0 - mu) / (1.0 - product)
        return beta1, 1.0 - beta1, beta2, 1.0 - beta2, along_m, along_g, 1.0 / math.sqrt(1.0 - beta2**t), hyper["eps"]


class NAdamW(NAdam):
    r"""NAdam with decoupled weight decay.

    .. math::

        \theta &\leftarrow \theta - \alpha \lambda \odot \theta \\
        \theta, m, v &\leftarrow \text{a step of NAdam}

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 2e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.999)
        Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, outside of the root.
    weight_decay : float, default 1e-2
        Decoupled weight decay :math:`\lambda`, times the learning rate.
    momentum_decay : float, default 4e-3
        :math:`\psi`, at least 0: how fast :math:`\mu_t` grows to :math:`\beta_1`. With ``math.inf`` it is
        :math:`\beta_1` from the start, as in optax.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state is that of `NAdam`.

    References
    ----------
    .. [1] Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016, algorithm 2.
    .. [2] Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.NAdamW(w, lr=0.5, weight_decay=0.1)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.421774, 2.428226])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        momentum_decay: float = 4e-3,
        **options: Unpack[Options],
    ) -> None:
        options["decoupled_weight_decay"] = True
        super().__init__(params, lr, betas, eps, weight_decay, momentum_decay, **options)
