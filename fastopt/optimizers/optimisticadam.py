"""Optimistic Adam: Adam that extrapolates from its last step, for games."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    optimism : float, default 1
        :math:`\omega`: how far the change of Adam's step is extrapolated; 1 in the paper.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

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

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        optimism: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "optimism": optimism}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return optimistic_adam, ("m", "v", "previous")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
        optimism = 0.0 if t == 1 else hyper["optimism"]
        averages = (beta1, 1.0 - beta1, beta2, 1.0 - beta2)
        return *averages, debias_m, debias_root_v, hyper["eps"], 1.0 + optimism, optimism
