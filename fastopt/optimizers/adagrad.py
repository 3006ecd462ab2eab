"""AdaGrad, which divides by the root of all squared gradients; and the form that sums up the rates themselves."""

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
def adagrad(theta, g, lr, r, eps):
    r = r + g * g
    return theta - lr * g / (eps + np.sqrt(r)), r


@rule
def adagrad_rates(theta, g, lr, alpha, eps):
    alpha = alpha + lr / (eps + np.abs(g))
    return theta - alpha * g, alpha


class AdaGrad(Optimizer):
    r"""AdaGrad: each element's rate falls with the gradients it has seen.

    .. math::

        r &\leftarrow r + g \odot g, \qquad \theta \leftarrow \theta - \frac{\alpha}{\epsilon + \sqrt r} \odot g
        && \text{(accumulate = "squares")} \\
        a &\leftarrow a + \frac{\alpha}{\epsilon + |g|}, \qquad \theta \leftarrow \theta - a \odot g
        && \text{(accumulate = "rates")}

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-2
        Global learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    eps : float, default 1e-10
        :math:`\epsilon`, outside of the root. With ``accumulate="rates"`` take more, 1e-7 to 1e-5.
    accumulate : {"squares", "rates"}, default "squares"
        What is summed up over the steps: the squared gradients, as Duchi et al. published it, or the rates.
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
    The state: ``"r"``, the sum of the squared gradients, or ``"alpha"``, the sum of the rates; both start at 0.

    The two forms differ in kind: with ``"squares"`` rates fall over time, with ``"rates"`` they grow. There, a gradient of
    zero adds :math:`\alpha/\epsilon` to its element's rate for good, so one zero can make all later steps of that element huge.

    References
    ----------
    .. [1] Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
       JMLR 12, 2011.
    .. [2] Goodfellow, Bengio, Courville, "Deep Learning", 2016, algorithm 8.4.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaGrad(w, lr=0.5, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([0.5, 2.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        eps: float = 1e-10,
        accumulate: str = "squares",
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, options=options, lr=lr, eps=eps, accumulate=accumulate, weight_decay=weight_decay)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (adagrad, ("r",)) if hyper["accumulate"] == "squares" else (adagrad_rates, ("alpha",))

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        return (hyper["eps"],)
