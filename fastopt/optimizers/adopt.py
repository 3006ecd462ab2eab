"""ADOPT: Adam that divides by the average of earlier squares only, before it averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.engine.values import at_least, clipped
from fastopt.optimizer import Optimizer


@rule
def adopt(theta, g, lr, m, v, least, most, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    normed = g / at_least(np.sqrt(v), eps)
    m = beta1 * m + one_minus_beta1 * clipped(normed, least, most)
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * m, m, v


class ADOPT(Optimizer):
    r"""ADOPT, as Taniguchi and others have it, with clipping.

    .. math::

        v_1 &= g_1 \odot g_1, \qquad \theta_1 = \theta_0 && (t = 1) \\
        m &\leftarrow \beta_1 m
        + (1 - \beta_1)\, \operatorname{clip}\Bigl(\frac{g}{\max(\sqrt v, \epsilon)}, (t - 1)^{1/4}\Bigr)
        && (t > 1) \\
        \theta &\leftarrow \theta - \alpha \odot m, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g \odot g

    Notes
    -----
    The state: ``"m"``, the average of the normalized gradients, and ``"v"``, that of the squared gradients; both start at 0.
    The first step only sets ``"v"``.

    References
    ----------
    .. [1] Taniguchi and others, "ADOPT: modified Adam can converge with any beta2 with the optimal rate", NeurIPS 2024,
       algorithm 2, with the clipping of its later version.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.ADOPT(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([1., 2.])
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.95, 2.05])
    """

    rule, state_names = adopt, ("m", "v")
    nonnegative_states = ("v",)
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper((0.9, 0.9999))
    eps: float = hyper(1e-6, doc=r":math:`\epsilon`: the root counts as at least this.")
    weight_decay: float = hyper(0.0)
    clip: bool = hyper(True, doc="Whether to clip, as the authors recommend.")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        if t == 1:
            return 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, hyper["eps"]
        beta1, beta2 = hyper["betas"]
        most = (t - 1.0) ** 0.25 if hyper["clip"] else math.inf
        return -most, most, beta1, 1.0 - beta1, beta2, 1.0 - beta2, hyper["eps"]
