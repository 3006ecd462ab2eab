"""AdaDelta, whose steps take their size from the steps before them."""

from __future__ import annotations

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
def adadelta(theta, g, lr, v, delta, rho, one_minus_rho, eps):
    v = rho * v + one_minus_rho * g * g
    step = np.sqrt(delta + eps) / np.sqrt(v + eps) * g
    delta = rho * delta + one_minus_rho * step * step
    return theta - lr * step, v, delta


class AdaDelta(Optimizer):
    r"""AdaDelta, as Zeiler's Algorithm 1 has it, with a learning rate besides.

    .. math::

        v &\leftarrow \rho v + (1 - \rho) g \odot g \\
        s &= \frac{\sqrt{\delta + \epsilon}}{\sqrt{v + \epsilon}} \odot g \\
        \delta &\leftarrow \rho \delta + (1 - \rho) s \odot s \\
        \theta &\leftarrow \theta - \alpha \odot s

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1.0
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    rho : float, default 0.9
        Decay rate :math:`\rho` of both averages, in [0, 1).
    eps : float, default 1e-6
        :math:`\epsilon`, inside of both roots. The first steps are proportional to its root; with 0 there are none.
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"v"``, the average of the squared gradient, and ``"delta"``, that of the squared step before it is multiplied
    by the learning rate; both start at 0, and neither is corrected for that.

    The paper has no learning rate, which is 1 there. It multiplies the step last, as in PyTorch.

    References
    ----------
    .. [1] Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaDelta(w, rho=0.75)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.998, 2.002])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, options=options, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return adadelta, ("v", "delta")

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return True

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        rho = hyper["rho"]
        return rho, 1.0 - rho, hyper["eps"]
