"""Yogi: Adam whose second average changes by additions of bounded size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer


@rule
def yogi(theta, g, lr, m, v, zero, beta1, one_minus_beta1, one_minus_beta2, debias_m, debias_root_v, eps):
    m = beta1 * m + one_minus_beta1 * g
    # The sign of a negative zero is not the same everywhere.
    v = v - one_minus_beta2 * np.sign(v - g * g + zero) * (g * g)
    return theta - lr * debias_m * m / (np.sqrt(v) * debias_root_v + eps), m, v


class Yogi(Optimizer):
    r"""Yogi, as Zaheer and others have it, with optax's corrections.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, & \hat m &= m / (1 - \beta_1^t) \\
        v &\leftarrow v - (1 - \beta_2) \operatorname{sign}(v - g \odot g) \odot g \odot g, & \hat v &= v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat v} + \epsilon)

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"v"``; both start at `initial_accumulator_value`, as in optax and
    TensorFlow. The paper starts :math:`m` at 0 and corrects neither.

    References
    ----------
    .. [1] Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive methods for nonconvex optimization", NeurIPS 2018, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Yogi(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.500193, 2.499858])
    """

    rule, state_names = yogi, ("m", "v")
    nonnegative_states = ("v",)
    lr: Rate = hyper(1e-2)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-3)
    weight_decay: float = hyper(0.0)
    initial_accumulator_value: float = hyper(1e-6, doc="What both states hold before the first step.")

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return hyper["initial_accumulator_value"]

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        return 0.0, beta1, 1.0 - beta1, 1.0 - beta2, debias_m, debias_root_v, hyper["eps"]
