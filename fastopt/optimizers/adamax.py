"""AdaMax: Adam with the largest gradient, fading, in the place of the mean square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer


@rule
def adamax(theta, g, lr, m, u, beta1, one_minus_beta1, beta2, debias_m, eps_within, eps):
    m = beta1 * m + one_minus_beta1 * g
    u = np.maximum(beta2 * u, np.abs(g) + eps_within)
    return theta - lr * debias_m * m / (u + eps), m, u


class AdaMax(Optimizer):
    r"""AdaMax, as Kingma and Ba's Algorithm 2 has it, with PyTorch's small constant.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad \hat m = m / (1 - \beta_1^t) \\
        u &\leftarrow \max(\beta_2 u, |g| + \epsilon) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / u

    Notes
    -----
    The state: ``"m"``, the average of the gradient, stored uncorrected, and ``"u"``, the fading maximum of its absolute value;
    both start at 0.

    A maximum has no bias towards its start at zero, so :math:`u` is not corrected. The correction of :math:`m` depends on the
    step alone, so it is computed once a step in double precision, and applied to the rate. The paper has no :math:`\epsilon`;
    its place is by default that of PyTorch and optax.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaMax(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    rule, state_names = adamax, ("m", "u")
    nonnegative_states = ("u",)
    lr: Rate = hyper(2e-3)
    betas: tuple[float, float] = hyper(
        (0.9, 0.999), doc=r"Decay rates :math:`\beta_1, \beta_2` of the average and of the maximum, in [0, 1)."
    )
    eps: float = hyper(
        1e-8, doc=r":math:`\epsilon`, by default added to each gradient's absolute value before the maximum is taken."
    )
    weight_decay: float = hyper(0.0)
    eps_in_denominator: bool = hyper(
        False, doc=r"Add :math:`\epsilon` to the maximum instead, where it divides, as Keras does."
    )

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        small = (0.0, hyper["eps"]) if hyper["eps_in_denominator"] else (hyper["eps"], 0.0)
        return beta1, 1.0 - beta1, beta2, 1.0 / (1.0 - beta1**t), *small
