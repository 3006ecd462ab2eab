"""RAdam: Adam that divides by its root only when enough steps have gone into it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import Number
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer

# At a shorter length the rectification is not defined.
LEAST_THRESHOLD = 4.0


@rule
def radam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, rectified, plain, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * m * (rectified / (np.sqrt(v) + eps) + plain), m, v


_threshold = Number(lambda x: LEAST_THRESHOLD <= x < math.inf, f"finite and at least {LEAST_THRESHOLD:g}")


class RAdam(Optimizer):
    r"""RAdam: Adam with rectified rates, as Liu and others have it; by default with PyTorch's threshold and small constant.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad \hat m = m / (1 - \beta_1^t) \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g \odot g \\
        \rho_\infty &= 2 / (1 - \beta_2) - 1, \qquad \rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t) \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
        \theta &\leftarrow \theta - \alpha r_t \odot \hat m \sqrt{1 - \beta_2^t} / (\sqrt v + \epsilon)
        && \text{if } \rho_t > \text{threshold} \\
        \theta &\leftarrow \theta - \alpha \odot \hat m && \text{otherwise}

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"v"``, that of its square; both start at 0 and are stored
    uncorrected.

    Which of the two steps is taken depends on the step's number alone. So all that depends on it is computed once a step in
    double precision, as two factors of which one is 0, and there is no choice left for the elements.

    References
    ----------
    .. [1] Liu, Jiang, He, Chen, Liu, Gao, Han, "On the variance of the adaptive learning rate and beyond", ICLR 2020,
       algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.RAdam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([-0.5,  4. ])
    """

    rule, state_names = radam, ("m", "v")
    nonnegative_states = ("v",)
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper(
        (0.9, 0.999),
        doc=r"""Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1). With :math:`\beta_2 \le 2/3` no step is
        rectified.""",
    )
    eps: float = hyper(1e-8, doc=r":math:`\epsilon`, outside of the root, by default added to the uncorrected root.")
    weight_decay: float = hyper(0.0)
    eps_hat: bool = hyper(
        True,
        doc=r"""Add :math:`\epsilon` to the root of the uncorrected average, as PyTorch does, or to that of the corrected
        one, as optax does.""",
    )
    threshold: float = hyper(
        5.0,
        _threshold,
        r"""The length :math:`\rho_t`, at least 4, above which steps are rectified: 5 in PyTorch, in optax and in the
        authors' code, 4 in their paper.""",
    )

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, bias_v = 1.0 / (1.0 - beta1**t), 1.0 - beta2**t
        limit = 2.0 / (1.0 - beta2) - 1.0
        length = limit - 2.0 * t * beta2**t / bias_v
        if length > hyper["threshold"]:
            rectification = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length)
            rectified, plain = debias_m * math.sqrt(rectification * bias_v), 0.0
            eps = hyper["eps"] if hyper["eps_hat"] else hyper["eps"] * math.sqrt(bias_v)
        else:
            # The root is multiplied by 0, so its eps only has to keep the quotient from being 0 / 0.
            rectified, plain, eps = 0.0, debias_m, 1.0
        return beta1, 1.0 - beta1, beta2, 1.0 - beta2, rectified, plain, eps
