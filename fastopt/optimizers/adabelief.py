"""AdaBelief: Adam, but divided by how far gradients are from their average, not from zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer


@rule
def adabelief(theta, g, lr, m, s, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_s, eps, eps_root):
    m = beta1 * m + one_minus_beta1 * g
    error = g - m
    s = beta2 * s + one_minus_beta2 * error * error + eps_root
    return theta - lr * debias_m * m / (np.sqrt(s) * debias_root_s + eps), m, s


class AdaBelief(Optimizer):
    r"""AdaBelief, as Zhuang et al.'s Algorithm 2 has it, but with two epsilons.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, & \hat m &= m / (1 - \beta_1^t) \\
        s &\leftarrow \beta_2 s + (1 - \beta_2) (g - m) \odot (g - m) + \epsilon_r, & \hat s &= s / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat s} + \epsilon)

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"s"``, that of the squared difference of the gradient from ``"m"``;
    both start at 0 and are stored uncorrected.

    Since :math:`\epsilon_r` is added in every step and stays in :math:`s`, the corrected :math:`\hat s` holds
    :math:`\epsilon_r / (1 - \beta_2)` of it at every step: 1e-13 by default.

    References
    ----------
    .. [1] Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", NeurIPS 2020,
       algorithm 2, without its projection.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaBelief(w, lr=0.9)
    >>> opt.step(np.array([3.0, -4.0]))  # the first m is g / 10, and g - m is 0.9 g
    >>> w.round(6)
    array([0., 3.])
    """

    rule, state_names = adabelief, ("m", "s")
    nonnegative_states = ("s",)
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-16)
    eps_root: float = hyper(
        1e-16, doc=r":math:`\epsilon_r`, added to :math:`s` in every step. The paper has one number for both."
    )
    weight_decay: float = hyper(0.0)

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_s = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        return beta1, 1.0 - beta1, beta2, 1.0 - beta2, debias_m, debias_root_s, hyper["eps"], hyper["eps_root"]
