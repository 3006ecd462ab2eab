"""Rprop: steps along the sign of the gradient, whose sizes grow until the sign changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import Several, nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.engine.values import clipped, select
from fastopt.optimizer import Optimizer


@rule
def rprop(theta, g, lr, size, previous, zero, one, first, shrink, grow, least, most):
    turn = g * previous
    # What is unlike itself is NaN, which must not count as a gradient of zero.
    same = select(previous == previous, one, previous)
    size = (size + first * lr) * select(turn > zero, grow, select(turn < zero, shrink, same))
    size = clipped(size, least, most)
    # After a change of sign nothing moves, and the next step counts as the first in its direction.
    g = select(turn < zero, zero, g)
    # The sign of a negative zero is not the same everywhere.
    return theta - np.sign(g + zero) * size, size, g


_etas = Several(2, nonnegative, lambda shrink, grow: 0 < shrink < 1 < grow, "a number between 0 and 1, and one above 1")
_step_sizes = Several(2, nonnegative, lambda least, most: least <= most, "the smallest size and the largest")


class Rprop(Optimizer):
    r"""Rprop, resilient backpropagation, in PyTorch's form.

    .. math::

        s &\leftarrow \operatorname{clip}\Bigl(s \odot \begin{cases} \eta_+ & g \odot g_{t-1} > 0 \\
        \eta_- & g \odot g_{t-1} < 0 \\
        1 & \text{else} \end{cases}\Bigr), \qquad g \leftarrow 0 \text{ where } g \odot g_{t-1} < 0 \\
        \theta &\leftarrow \theta - s \odot \operatorname{sign}(g)

    Notes
    -----
    The state: ``"size"``, the size of each element's step, which is `lr` in the first step, and ``"previous"``, the last
    gradient, with 0 where nothing moved. Both start at 0. After the first step `lr` is not used any more.

    It is for gradients without noise.

    References
    ----------
    .. [1] Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", 1993.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Rprop(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    rule, state_names = rprop, ("size", "previous")
    nonnegative_states = ("size",)
    takes_modulus = False
    lr: Rate = hyper(1e-2)
    etas: tuple[float, float] = hyper((0.5, 1.2), _etas, r"The factors :math:`\eta_- < 1 < \eta_+`.")
    step_sizes: tuple[float, float] = hyper((1e-6, 50.0), _step_sizes, "The smallest and the largest size of a step.")
    weight_decay: float = hyper(0.0)

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return t > 1

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        return 0.0, 1.0, 1.0 if t == 1 else 0.0, *hyper["etas"], *hyper["step_sizes"]
