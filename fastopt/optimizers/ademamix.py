"""AdEMAMix: Adam with a second, much slower average of the gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decays, nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@rule
def ademamix(
    theta,
    g,
    lr,
    m,
    m_slow,
    v,
    beta1,
    one_minus_beta1,
    beta3,
    one_minus_beta3,
    beta2,
    one_minus_beta2,
    alpha,
    debias_m,
    debias_root_v,
    eps,
):
    m = beta1 * m + one_minus_beta1 * g
    m_slow = beta3 * m_slow + one_minus_beta3 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * (debias_m * m + alpha * m_slow) / (np.sqrt(v) * debias_root_v + eps), m, m_slow, v


class AdEMAMix(Optimizer):
    r"""AdEMAMix, as Pagliardini, Ablin and Grangier have it.

    .. math::

        m_1 &\leftarrow \beta_1 m_1 + (1 - \beta_1) g, & \hat m_1 &= m_1 / (1 - \beta_1^t) \\
        m_2 &\leftarrow \beta_3(t)\, m_2 + (1 - \beta_3(t)) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g \odot g, & \hat v &= v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta
        - \eta \odot \Bigl(\frac{\hat m_1 + \alpha(t)\, m_2}{\sqrt{\hat v} + \epsilon} + \lambda\theta\Bigr)

    Notes
    -----
    The state: ``"m"`` and ``"m_slow"``, the two averages of the gradient, and ``"v"``, that of its square; all start at 0.
    The slow average is not corrected.

    References
    ----------
    .. [1] Pagliardini, Ablin, Grangier, "The AdEMAMix optimizer: better, faster, older", ICLR 2025, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdEMAMix(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.49975, 2.50025])
    """

    rule, state_names = ademamix, ("m", "m_slow", "v")
    nonnegative_states = ("v",)
    decoupled_weight_decay = True
    lr: Rate = hyper(1e-3, doc=r"Learning rate :math:`\eta`")
    betas: tuple[float, float, float] = hyper(
        (0.9, 0.999, 0.9999),
        decays(3),
        r"""Decay rates :math:`\beta_1, \beta_2, \beta_3`, in [0, 1): of the fast average, of the squares, of the slow
        average.""",
    )
    alpha: float = hyper(5.0, nonnegative, r":math:`\alpha`, the weight of the slow average.")
    eps: float = hyper(1e-8)
    weight_decay: float = hyper(0.0, doc=DECOUPLED)
    warmup_steps: float = hyper(
        0,
        nonnegative,
        r"""Steps over which :math:`\alpha(t)` grows from 0 to `alpha`, and :math:`\beta_3(t)` from :math:`\beta_1` to
        :math:`\beta_3`, as in the paper's equations 4 and 5. With 0 they are constant.""",
    )

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2, beta3 = hyper["betas"]
        alpha = hyper["alpha"]
        share = min(1.0, t / hyper["warmup_steps"]) if hyper["warmup_steps"] else 1.0
        if share < 1.0:
            alpha, beta3 = share * alpha, _between(beta1, beta3, share)
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        averages = (beta1, 1.0 - beta1, beta3, 1.0 - beta3, beta2, 1.0 - beta2)
        return *averages, alpha, debias_m, debias_root_v, hyper["eps"]


def _between(start: float, end: float, share: float) -> float:
    """The decay rate whose half-life lies at this share of the way between those of two decay rates."""
    if start == 0.0 or end == 0.0:
        return 0.0
    return math.exp(math.log(start) * math.log(end) / ((1.0 - share) * math.log(end) + share * math.log(start)))
