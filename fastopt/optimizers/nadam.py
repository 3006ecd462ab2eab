"""NAdam: Adam that looks ahead along its momentum, as Nesterov's method does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative_or_infinite
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, rule
from fastopt.engine.decisions import decision
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@rule
def nadam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, along_m, along_g, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * (along_m * m + along_g * g) / (np.sqrt(v) * debias_root_v + eps), m, v


@decision
def momentum_at(t, beta1, decay):
    """The momentum of a step."""
    return beta1 * (1.0 - 0.5 * math.pow(0.96, t * decay))


@decision
def nadam_numbers(t, mu_product, beta1, beta2, eps, decay):
    mu, mu_next = momentum_at(t, beta1, decay), momentum_at(t + 1.0, beta1, decay)
    product = mu_product * mu
    along_m, along_g = mu_next / (1.0 - product * mu_next), (1.0 - mu) / (1.0 - product)
    return product, beta1, 1.0 - beta1, beta2, 1.0 - beta2, along_m, along_g, 1.0 / math.sqrt(1.0 - beta2**t), eps


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's momentum, as Dozat and PyTorch have it.

    .. math::

        \mu_t &= \beta_1 \bigl(1 - \tfrac12\, 0.96^{t \psi}\bigr) \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g \odot g \\
        \hat m &= \frac{\mu_{t+1}\, m}{1 - \prod_{i=1}^{t+1} \mu_i} + \frac{(1 - \mu_t)\, g}{1 - \prod_{i=1}^{t} \mu_i},
        \qquad \hat v = v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat v} + \epsilon)

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

    rule, state_names = nadam, ("m", "v")
    nonnegative_states = ("v",)
    scalars: ClassVar[Mapping[str, float]] = {"mu_product": 1.0}
    lr: Rate = hyper(2e-3)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-8)
    weight_decay: float = hyper(0.0)
    momentum_decay: float = hyper(
        4e-3,
        nonnegative_or_infinite,
        r""":math:`\psi`, at least 0: how fast :math:`\mu_t` grows to :math:`\beta_1`. With ``math.inf`` it is
        :math:`\beta_1` from the start, as in optax.""",
    )

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return nadam_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return *hyper["betas"], hyper["eps"], hyper["momentum_decay"]


class NAdamW(NAdam):
    r"""NAdam with decoupled weight decay.

    .. math::

        \theta &\leftarrow \theta - \alpha \lambda \odot \theta \\
        \theta, m, v &\leftarrow \text{a step of NAdam}

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

    decoupled_weight_decay = True
    weight_decay: float = hyper(1e-2, doc=DECOUPLED)
