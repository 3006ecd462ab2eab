"""Adam: averages of the gradient and of its square, both corrected for their start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.optimizer import Optimizer


@rule
def adam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * debias_m * m / (np.sqrt(v) * debias_root_v + eps), m, v


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

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"v"``, that of its square; both start at 0 and are stored
    uncorrected.

    The two corrections depend on the step alone, so they are computed once a step in double precision, and applied as one
    factor each: to the rate, and to the root.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Adam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return adam, ("m", "v")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        return beta1, 1.0 - beta1, beta2, 1.0 - beta2, debias_m, debias_root_v, hyper["eps"]
