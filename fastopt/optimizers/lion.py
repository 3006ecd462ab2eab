"""Lion: steps of one size, along the sign of an average of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@rule
def lion(theta, g, lr, m, zero, beta1, one_minus_beta1, beta2, one_minus_beta2):
    # The sign of -0 is 0 to NumPy, but -0 to Numba; with 0 added, it is 0 to both.
    direction = np.sign(beta1 * m + one_minus_beta1 * g) + zero
    return theta - lr * direction, beta2 * m + one_minus_beta2 * g


class Lion(Optimizer):
    r"""Lion, as Chen et al.'s Algorithm 2 has it: evolved sign momentum.

    .. math::

        c &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        \theta &\leftarrow \theta - \alpha \odot (\operatorname{sign} c + \lambda \theta) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2) g

    Notes
    -----
    The state: ``"m"``, the average of the gradient, which starts at 0. It is updated after the step, with a decay rate of its
    own: the direction gives the newest gradient more weight than the average does.

    The sign of 0 is 0, so an element that never had a gradient stays; that of NaN is NaN.

    References
    ----------
    .. [1] Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0, 3.0])
    >>> opt = fastopt.Lion(w)
    >>> opt.step(np.array([3.0, -0.4, 0.0]))
    >>> w
    array([0.9999, 2.0001, 3.    ])
    """

    rule, state_names = lion, ("m",)
    decoupled_weight_decay = True
    lr: Rate = hyper(1e-4, doc=r"Learning rate :math:`\alpha`, which is how far every element moves")
    betas: tuple[float, float] = hyper(
        (0.9, 0.99),
        doc=r""":math:`\beta_1`, the weight of the average in the direction, and :math:`\beta_2`, the average's decay rate;
        in [0, 1).""",
    )
    weight_decay: float = hyper(0.0, doc=DECOUPLED)

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return True

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        return 0.0, beta1, 1.0 - beta1, beta2, 1.0 - beta2
