"""A learning-rate range test: what the objective does while the rate grows from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.hyperparameters import integer, positive
from fastopt.minimization.objective import Objective
from fastopt.minimization.options import Method
from fastopt.minimization.pictures import axes_of, labelled
from fastopt.minimization.solver import Solver

DIVERGED = 4.0  # times the fall so far above the start ends it
SHARE = 0.1  # of the rate at the end of the descent
DESCENT = 0.1  # of the whole fall is more than noise
REBOUND = 0.5  # of a fall ends the descent, for the objective may be low again by chance


@dataclass
class RateTest:
    """What a learning-rate range test has found.

    Parameters
    ----------
    lr : float
        A tenth of the rate at the end of the descent, a good one to begin with.
    rates, values : ndarray of float64, shape (steps,)
        The rates, and the objective after a step with each of them.
    """

    lr: float
    rates: NDArray[np.float64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)

    def plot(self, ax: Any = None) -> Any:
        """Draw the objective over the rate.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes
        """
        ax = axes_of(ax)
        ax.semilogx(self.rates, self.values)
        ax.axvline(self.lr, linestyle="--", label=f"lr = {self.lr:.2g}")
        return labelled(ax, "learning rate", "objective")


def find_lr(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    method: Method = "adam",
    jac: Any = None,
    bounds: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
) -> RateTest:
    """Find a learning rate by a range test (Smith, 2017): steps with rates that grow, until the objective does, too.

    Parameters
    ----------
    fun, x0, args, method, jac, bounds
        As `minimize` takes them.
    options : mapping, optional
        Those of `Solver` and arguments of the optimizer, but for what tells when to stop.
    lowest, highest : float
        The first and the last rate.
    steps : int, default 100
        How many steps to take at most, each with a rate larger by the same factor.

    Returns
    -------
    RateTest

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or the objective falls nowhere.

    Examples
    --------
    >>> import fastopt
    >>> from scipy.optimize import rosen, rosen_der
    >>> found = fastopt.find_lr(rosen, [-1.2, 1.0], jac=rosen_der)
    >>> 1e-3 < found.lr < 0.3
    True
    """
    lowest, highest, steps = positive("lowest", lowest), positive("highest", highest), integer("steps", steps, least=2)
    if not lowest < highest:
        raise ValueError(f"lowest must be less than highest, got {lowest!r} and {highest!r}")
    rates = np.geomspace(lowest, highest, steps)
    own = {**(options or {}), "lr": lambda step: float(rates[min(step, steps - 1)]), "maxiter": steps, "gtol": None}
    solver = Solver(x0, method, bounds, **own)
    objective = Objective(fun, jac, args, solver.bounds, needs_value=True)
    values: list[float] = []
    nit = -1
    while solver.nit > nit:  # else the last step has led to what is not finite, or was the last of all
        nit = solver.nit
        value, g = objective(solver.ask())
        values.append(math.inf if value is None else value)
        solver.tell(value, g)
        if values[-1] - values[0] > DIVERGED * (values[0] - min(values)) > 0:
            break
    after = np.array(values[1:])
    after = after[np.isfinite(after)]
    if not after.size or not after.min() < values[0]:
        raise ValueError(
            f"fun must fall with rates between {lowest:.3g} and {highest:.3g}, but nowhere was less than {values[0]:.6g}"
        )
    return RateTest(SHARE * float(rates[_end_of_descent(values[0], after)]), rates[: after.size], after)


def _end_of_descent(first: float, values: NDArray[np.float64]) -> int:
    """Where values were least before they first rose again by much of what they had fallen."""
    falls = first - np.minimum.accumulate(values)
    has_fallen = falls >= DESCENT * falls[-1]
    rebounds = np.flatnonzero(has_fallen & (values - (first - falls) >= REBOUND * falls))
    return int(values[: rebounds[0] if rebounds.size else None].argmin())
