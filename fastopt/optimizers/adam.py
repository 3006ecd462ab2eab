"""Adam: averages of the gradient and of its square, both corrected for their start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@rule
def adam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * debias_m * m / (np.sqrt(v) * debias_root_v + eps), m, v


@rule
def amsgrad(theta, g, lr, m, v, v_max, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    v_max = np.maximum(v_max, v)
    return theta - lr * debias_m * m / (np.sqrt(v_max) * debias_root_v + eps), m, v, v_max


class Adam(Optimizer):
    r"""Adam, as Kingma and Ba's Algorithm 1 has it.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, & \hat m &= m / (1 - \beta_1^t) \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g \odot g, & \hat v &= v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.999)
        Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, outside of the root, added to the corrected root.
    weight_decay : float, default 0
        Weight decay :math:`\lambda`. Coupled, :math:`g + \lambda\theta` takes the place of :math:`g`; decoupled, :math:`\theta`
        shrinks by :math:`\alpha\lambda\theta` before the step.
    amsgrad : bool, default False
        Divide by the root of the largest :math:`v` so far, which is then corrected as :math:`v` would be.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"v"``, that of its square; both start at 0 and are stored
    uncorrected. With `amsgrad`, ``"v_max"``, the largest ``"v"``.

    The two corrections depend on the step alone, so they are computed once a step in double precision, and applied as one
    factor each: to the rate, and to the root.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    .. [2] Reddi, Kale, Kumar, "On the convergence of Adam and beyond", ICLR 2018, for AMSGrad; there without corrections, here
       with them, as in PyTorch.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Adam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (amsgrad, ("m", "v", "v_max")) if hyper["amsgrad"] else (adam, ("m", "v"))

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        return beta1, 1.0 - beta1, beta2, 1.0 - beta2, debias_m, debias_root_v, hyper["eps"]


class AdamW(Adam):
    r"""Adam with decoupled weight decay, as Loshchilov and Hutter have it.

    .. math::

        \theta &\leftarrow \theta - \alpha \lambda \odot \theta \\
        \theta, m, v &\leftarrow \text{a step of Adam}

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages, in [0, 1).
    eps : float, default 1e-8
        Outside of the root, added to the corrected root.
    weight_decay : float, default 1e-2
        :math:`\lambda`, times the learning rate, as in PyTorch. (optax's default is 1e-4.)
    amsgrad : bool, default False
        Divide by the root of the largest :math:`v` so far, which is then corrected as :math:`v` would be.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state is that of `Adam`. The decay does not pass through the averages, so it shrinks all weights at the same rate,
    those with large gradients, too.

    References
    ----------
    .. [1] Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2 with a constant multiplier.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdamW(w, lr=0.5, weight_decay=0.1)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.45, 2.4 ])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        options["decoupled_weight_decay"] = True
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)
