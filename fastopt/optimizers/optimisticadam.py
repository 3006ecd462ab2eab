"""Optimistic Adam: Adam that extrapolates from its last step, for games."""

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
def optimistic_adam(
    theta,
    g,
    lr,
    m,
    v,
    previous,
    beta1,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    debias_m,
    debias_root_v,
    eps,
    along,
    along_previous,
):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    step = debias_m * m / (np.sqrt(v) * debias_root_v + eps)
    return theta - lr * (along * step - along_previous * previous), m, v, step


class OptimisticAdam(Optimizer):
    r"""Optimistic Adam, as Daskalakis and others have it.

    .. math::

        u_t &= \hat m / (\sqrt{\hat v} + \epsilon) \qquad \text{(Adam's)} \\
        \theta &\leftarrow \theta - \alpha \odot \bigl((1 + \omega)\, u_t - \omega\, u_{t-1}\bigr)

    Notes
    -----
    The state: ``"m"`` and ``"v"`` as in `Adam`, and ``"previous"``, Adam's last step; all start at 0. The first step is
    Adam's.

    References
    ----------
    .. [1] Daskalakis, Ilyas, Syrgkanis, Zeng, "Training GANs with optimism", ICLR 2018, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.OptimisticAdam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    rule, state_names = optimistic_adam, ("m", "v", "previous")
    nonnegative_states = ("v",)
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-8)
    weight_decay: float = hyper(0.0)
    optimism: float = hyper(1.0, doc=r":math:`\omega`: how far the change of Adam's step is extrapolated; 1 in the paper.")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        optimism = 0.0 if t == 1 else hyper["optimism"]
        averages = (beta1, 1.0 - beta1, beta2, 1.0 - beta2)
        return *averages, debias_m, debias_root_v, hyper["eps"], 1.0 + optimism, optimism
