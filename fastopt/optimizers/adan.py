"""Adan: Adam with the differences of successive gradients for Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decays
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@rule
def adan(
    theta,
    g,
    lr,
    m,
    d,
    n,
    previous,
    beta1,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    beta3,
    one_minus_beta3,
    seen,
    debias_m,
    debias_d,
    debias_n,
    eps_root,
    eps,
):
    difference = seen * (g - previous)
    m = beta1 * m + one_minus_beta1 * g
    d = beta2 * d + one_minus_beta2 * difference
    ahead = g + one_minus_beta2 * difference
    n = beta3 * n + one_minus_beta3 * ahead * ahead
    step = (debias_m * m + one_minus_beta2 * debias_d * d) / (np.sqrt(debias_n * n + eps_root) + eps)
    return theta - lr * step, m, d, n, g


class Adan(Optimizer):
    r"""Adan, as Xie and others have it, in optax's parametrization.

    .. math::

        \Delta &= g - g_{t-1}, \qquad u = g + (1 - \beta_2) \Delta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad d \leftarrow \beta_2 d + (1 - \beta_2) \Delta, \qquad
        n \leftarrow \beta_3 n + (1 - \beta_3) u \odot u \\
        \theta &\leftarrow \theta - \alpha \odot \frac{\hat m + (1 - \beta_2) \hat d}{\sqrt{\hat n + \bar\epsilon} + \epsilon}

    Notes
    -----
    The state: ``"m"``, ``"d"`` and ``"n"``, the three averages, uncorrected, and ``"previous"``, the last gradient; all
    start at 0, and the first difference counts as 0. A hat is a division by :math:`1 - \beta^t`, as in `Adam`.

    The paper writes :math:`1 - \beta` for each :math:`\beta` here, :math:`v` for :math:`d`, and lets weights decay by a
    division by :math:`1 + \alpha\lambda` after the step; here, as in optax, :math:`\alpha\lambda\theta` is subtracted.

    References
    ----------
    .. [1] Xie, Zhou, Li, Lin, Yan, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", 2022,
       algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Adan(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    rule, state_names = adan, ("m", "d", "n", "previous")
    nonnegative_states = ("n",)
    decoupled_weight_decay = True
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float, float] = hyper(
        (0.98, 0.92, 0.99),
        decays(3),
        r"""Decay rates :math:`\beta_1, \beta_2, \beta_3` of the averages of the gradients, of their differences, and of
        the squares, in [0, 1).""",
    )
    eps: float = hyper(1e-8)
    eps_root: float = hyper(0.0, doc=r":math:`\bar\epsilon`, inside of the root.")
    weight_decay: float = hyper(0.0, doc=DECOUPLED)

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2, beta3 = hyper["betas"]
        averages = (beta1, 1.0 - beta1, beta2, 1.0 - beta2, beta3, 1.0 - beta3)
        debias = (1.0 / (1.0 - beta1**t), 1.0 / (1.0 - beta2**t), 1.0 / (1.0 - beta3**t))
        return *averages, 0.0 if t == 1 else 1.0, *debias, hyper["eps_root"], hyper["eps"]
