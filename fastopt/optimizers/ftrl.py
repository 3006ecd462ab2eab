"""FTRL-Proximal: online learning with an L1 penalty that makes exact zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.engine.values import soft_thresholded
from fastopt.optimizer import Optimizer


@rule
def ftrl(theta, g, lr, z, n, zero, beta, l1, l2):
    root = np.sqrt(n)
    n = n + g * g
    new_root = np.sqrt(n)
    z = z + g - (new_root - root) / lr * theta
    return zero - soft_thresholded(z, l1) / ((beta + new_root) / lr + l2), z, n


class FTRL(Optimizer):
    r"""FTRL-Proximal with L1 and L2, as McMahan and others have it.

    .. math::

        \sigma &= \frac{\sqrt{n + g \odot g} - \sqrt n}{\alpha}, \qquad z \leftarrow z + g - \sigma \odot \theta, \qquad
        n \leftarrow n + g \odot g \\
        \theta &\leftarrow \begin{cases} 0 & |z| \le \lambda_1 \\
        -\Bigl(\frac{\beta + \sqrt n}{\alpha} + \lambda_2\Bigr)^{-1}
        (z - \operatorname{sign}(z) \lambda_1) & \text{else} \end{cases}

    Notes
    -----
    The state: ``"z"``, the gradients summed up with corrections, which starts at 0, and ``"n"``, the sum of their squares,
    which starts at `initial_accumulator_value`.

    The algorithm starts with :math:`\theta = 0`. From another start, the first step goes to where the sums lead, whatever
    :math:`\theta` was.

    References
    ----------
    .. [1] McMahan and others, "Ad click prediction: a view from the trenches", KDD 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(3)
    >>> opt = fastopt.FTRL(w, lr=0.5, l1=1.0)
    >>> opt.step(np.array([3.0, -4.0, 0.5]))
    >>> w
    array([-0.25,  0.3 ,  0.  ])
    """

    rule, state_names = ftrl, ("z", "n")
    nonnegative_states, copies_of_theta = ("n",), ("z",)
    own_options = frozenset({"l1"})
    lr: Rate = hyper(0.1, doc=r"Learning rate, more than 0, :math:`\alpha`")
    beta: float = hyper(1.0, nonnegative, r":math:`\beta`: rates begin at :math:`\alpha / (\beta + |g|)`.")
    # To type checkers it is the option of all optimizers, which stands elsewhere among the arguments.
    l1 = hyper(
        0.0, nonnegative, r":math:`\lambda_1`: an element is exactly 0 while the sum of its gradients stays within this."
    )
    l2: float = hyper(0.0, nonnegative, r":math:`\lambda_2`.")
    initial_accumulator_value: float = hyper(0.0, doc="What ``n`` starts at.")
    weight_decay: float = hyper(0.0)

    # Its own l1 takes the place of the option.
    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return hyper["initial_accumulator_value"] if name == "n" else 0.0

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        return 0.0, hyper["beta"], hyper["l1"], hyper["l2"]
