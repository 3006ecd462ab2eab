"""RMSProp, which divides by the root of the mean squared gradient; and the form that averages the rates themselves."""

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
def rmsprop(theta, g, lr, v, rho, one_minus_rho, eps):
    v = rho * v + one_minus_rho * g * g
    return theta - lr * g / (eps + np.sqrt(v)), v


@rule
def rmsprop_rates(theta, g, lr, alpha, rho, one_minus_rho, eps):
    alpha = rho * alpha + one_minus_rho * lr / (eps + np.abs(g))
    return theta - alpha * g, alpha


class RMSProp(Optimizer):
    r"""RMSProp: each element's rate follows the root mean square of its recent gradients.

    .. math::

        v &\leftarrow \rho v + (1 - \rho) g \odot g, \qquad \theta \leftarrow \theta - \frac{\alpha}{\epsilon + \sqrt v} \odot g
        && \text{(accumulate = "squares")} \\
        a &\leftarrow \rho a + (1 - \rho) \frac{\alpha}{\epsilon + |g|}, \qquad \theta \leftarrow \theta - a \odot g
        && \text{(accumulate = "rates")}

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-2
        Global learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    rho : float, default 0.99
        Decay rate :math:`\rho` of the average, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, outside of the root.
    accumulate : {"squares", "rates"}, default "squares"
        What is averaged over the steps: the squared gradients, as Hinton's lecture has it, or the rates.
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
    The state: ``"v"``, the average of the squared gradients, or ``"alpha"``, that of the rates; both start at 0.

    Neither form corrects the bias of its average. With ``"squares"`` the first steps are therefore large, by
    :math:`1/\sqrt{1 - \rho}`; with ``"rates"`` they are small, by :math:`1 - \rho`.

    References
    ----------
    .. [1] Hinton, "Neural networks for machine learning", lecture 6e, 2012.
    .. [2] Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 8.5.2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.RMSProp(w, lr=0.5, rho=0.75, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([0., 3.])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        rho: float = 0.99,
        eps: float = 1e-8,
        accumulate: str = "squares",
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "rho": rho, "eps": eps, "accumulate": accumulate}
        super().__init__(params, options=options, **hyper, weight_decay=weight_decay)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (rmsprop, ("v",)) if hyper["accumulate"] == "squares" else (rmsprop_rates, ("alpha",))

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        rho = hyper["rho"]
        return rho, 1.0 - rho, hyper["eps"]
