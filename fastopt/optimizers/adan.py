"""Adan: Adam with the differences of successive gradients for Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, decays
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


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

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : tuple of float, default (0.98, 0.92, 0.99)
        Decay rates :math:`\beta_1, \beta_2, \beta_3` of the averages of the gradients, of their differences, and of the
        squares, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, outside of the root.
    eps_root : float, default 0
        :math:`\bar\epsilon`, inside of the root.
    weight_decay : float, default 0
        Decoupled weight decay :math:`\lambda`, times the learning rate.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

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

    checks: ClassVar[Mapping[str, Check]] = {**Optimizer.checks, "betas": decays(3)}

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, ...] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        eps_root: float = 0.0,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "eps_root": eps_root, "weight_decay": weight_decay}
        super().__init__(params, options=options, **hyper, decoupled_weight_decay=True)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return adan, ("m", "d", "n", "previous")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2, beta3 = hyper["betas"]
        averages = (beta1, 1.0 - beta1, beta2, 1.0 - beta2, beta3, 1.0 - beta3)
        debias = (1.0 / (1.0 - beta1**t), 1.0 / (1.0 - beta2**t), 1.0 / (1.0 - beta3**t))
        return *averages, 0.0 if t == 1 else 1.0, *debias, hyper["eps_root"], hyper["eps"]
