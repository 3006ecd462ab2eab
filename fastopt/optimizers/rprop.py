"""Rprop: steps along the sign of the gradient, whose sizes grow until the sign changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastopt.engine.compile import rule
from fastopt.engine.values import select
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, Several, nonnegative
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@rule
def rprop(theta, g, lr, size, previous, zero, one, first, shrink, grow, least, most):
    turn = g * previous
    size = (size + first * lr) * select(turn > zero, grow, select(turn < zero, shrink, one))
    size = np.minimum(np.maximum(size, least), most)
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

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-2
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    etas : pair of float, default (0.5, 1.2)
        The factors :math:`\eta_- < 1 < \eta_+`.
    step_sizes : pair of float, default (1e-6, 50)
        The smallest and the largest size of a step.
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

    checks: ClassVar[Mapping[str, Check]] = {**Optimizer.checks, "etas": _etas, "step_sizes": _step_sizes}
    takes_modulus: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "etas": etas, "step_sizes": step_sizes, "weight_decay": weight_decay}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return rprop, ("size", "previous")

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return t > 1

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        return 0.0, 1.0, 1.0 if t == 1 else 0.0, *hyper["etas"], *hyper["step_sizes"]
