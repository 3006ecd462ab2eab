"""Signum: steps of one size, along the sign of the momentum, or of the gradient itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decay
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@rule
def signsgd(theta, g, lr, zero):
    # The sign of -0 is 0 to NumPy, but -0 to Numba; with 0 added, it is 0 to both.
    return theta - lr * (np.sign(g) + zero)


@rule
def signum(theta, g, lr, m, zero, beta, one_minus_beta):
    m = beta * m + one_minus_beta * g
    return theta - lr * (np.sign(m) + zero), m


class Signum(Optimizer):
    r"""Signum, and signSGD without momentum, as Bernstein et al. have them.

    .. math::

        m &\leftarrow \beta m + (1 - \beta) g, \qquad
        \theta \leftarrow \theta - \alpha \odot (\operatorname{sign} m + \lambda \theta) && \text{(momentum = } \beta) \\
        \theta &\leftarrow \theta - \alpha \odot (\operatorname{sign} g + \lambda \theta) && \text{(momentum = 0)}

    Notes
    -----
    The state: ``"m"``, the average of the gradient, if there is momentum; it starts at 0, and is not corrected for that,
    because a correction would not change its sign.

    The sign of 0 is 0, so an element that never had a gradient stays; that of NaN is NaN.

    References
    ----------
    .. [1] Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD: compressed optimisation for non-convex problems", ICML 2018,
       algorithms 1 and 2, which have no weight decay.
    .. [2] Bernstein, Zhao, Azizzadenesheli, Anandkumar, "signSGD with majority vote is communication efficient and fault
       tolerant", ICLR 2019, algorithm 1, for the weight decay; here with one worker.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0, 3.0])
    >>> opt = fastopt.Signum(w, lr=0.5)
    >>> opt.step(np.array([3.0, -0.4, 0.0]))
    >>> w
    array([0.5, 2.5, 3. ])
    """

    decoupled_weight_decay = True
    lr: Rate = hyper(1e-3, doc=r"Learning rate :math:`\alpha`, which is how far every element moves")
    momentum: float = hyper(0.9, decay, r":math:`\beta`, in [0, 1). At 0 there is no state: signSGD.")
    weight_decay: float = hyper(0.0, doc=DECOUPLED)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (signum, ("m",)) if hyper["momentum"] else (signsgd, ())

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return True

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta = hyper["momentum"]
        return (0.0, beta, 1.0 - beta) if beta else (0.0,)
