"""AdaDelta, whose steps take their size from the steps before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer


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

    rule, state_names = adadelta, ("v", "delta")
    nonnegative_states = ("v", "delta")
    lr: Rate = hyper(1.0)
    rho: float = hyper(0.9, doc=r"Decay rate :math:`\rho` of both averages, in [0, 1).")
    eps: float = hyper(
        1e-6,
        doc=r":math:`\epsilon`, inside of both roots. The first steps are proportional to its root; with 0 there are none.",
    )
    weight_decay: float = hyper(0.0)

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return True

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        rho = hyper["rho"]
        return rho, 1.0 - rho, hyper["eps"]
