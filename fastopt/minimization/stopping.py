"""When a minimization stops: one class for each test, and the statuses."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.minimization.bounds import Box
from fastopt.minimization.options import TOLERANCES

REACHED, MAXITER, TIME, PATIENCE, NOT_FINITE, INTERRUPTED = 0, 1, 3, 4, 5, 6
PLATEAU = 7
STOPPED = 99  # as in SciPy
MESSAGES = {
    None: "It has not ended yet.",
    REACHED: "A tolerance was reached.",
    MAXITER: "The number of steps was reached.",
    TIME: "The time limit was reached.",
    PATIENCE: "The objective has not improved for a while.",
    NOT_FINITE: "The objective or its gradient is not finite.",
    INTERRUPTED: "It was interrupted from the keyboard.",
    PLATEAU: "The objective falls no more, as far as its noise lets one see.",
    STOPPED: "The callback asked to stop.",
}


class Told:
    """What is known of the present point; a minimization has one, which moves on with it.

    Attributes
    ----------
    x, before : ndarray, shape (n,)
        The point, and the one before.
    value, first : float
        The objective there, and at the start; NaN if nobody needs it.
    gradient : ndarray of shape (n,), or None
        As it was told for this point, if it was; not to be kept.
    nit : int
        How many steps led there.
    part : slice
        Where in these arrays the result is: all of it, or the best of many starts.
    is_seen : bool
        Whether those who take note of points have seen it, perhaps before it was a state to go on from.
    """

    memory = ("value", "first", "is_seen")

    def __init__(self, x: NDArray[Any]) -> None:
        self.x, self.before = x, x.copy()
        self.value = self.first = math.nan
        self.gradient: NDArray[Any] | None = None
        self.nit = 0
        self.part = slice(None)
        self.is_seen = False

    @property
    def found(self) -> NDArray[Any]:
        """The gradient, where it is known."""
        assert self.gradient is not None
        return self.gradient


class Test:
    """One reason to stop.

    Parameters
    ----------
    told : Told
        What to look at.
    """

    memory: tuple[str, ...] = ()
    """Attributes that are part of a checkpoint: numbers or None."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def see(self) -> None:
        """Take note of a point, once."""

    def reason(self) -> int | None:
        """The status with which to stop there, if there is reason to."""
        raise NotImplementedError


class SmallGradient(Test):
    """The largest element of the gradient is at most a tolerance, but for what would lead out of active bounds.

    The element that was the largest the last time is looked at first: while it is above the tolerance, no other needs to be.
    """

    def __init__(self, told: Told, tolerance: float, bounds: Box | None) -> None:
        super().__init__(told)
        self._tolerance, self._bounds, self._largest = tolerance, bounds, 0

    def reason(self) -> int | None:
        """The status, if it is so."""
        x, g, bounds = self.told.x, self.told.found, self._bounds
        if not g.size:
            return REACHED
        i = self._largest
        if abs(parts(g).item(i) if bounds is None else bounds.inward_part(x, g, i)) > self._tolerance:
            return None
        changes = np.abs(parts(g) if bounds is None else bounds.inward(x, g))
        self._largest = int(changes.argmax())
        return REACHED if changes[self._largest] <= self._tolerance else None


class SmallStep(Test):
    """No variable has changed by more than a tolerance in the last step."""

    def __init__(self, told: Told, tolerance: float) -> None:
        super().__init__(told)
        self._tolerance = tolerance

    def reason(self) -> int | None:
        """The status, if it is so."""
        told = self.told
        if told.nit and np.max(np.abs(parts(told.x) - parts(told.before)), initial=0.0) <= self._tolerance:
            return REACHED
        return None


class SmallChange(Test):
    """The objective has changed by no more than a tolerance in the last step, relative to the larger of 1 and itself."""

    memory = ("_previous", "_change")

    def __init__(self, told: Told, tolerance: float) -> None:
        super().__init__(told)
        self._tolerance = tolerance
        self._previous, self._change = math.nan, math.nan

    def see(self) -> None:
        """Take note of the change."""
        self._change, self._previous = abs(self._previous - self.told.value), self.told.value

    def reason(self) -> int | None:
        """The status, if it is so."""
        return REACHED if self._change <= least_change(self._tolerance, self._previous) else None


class NoImprovement(Test):
    """For a number of steps the objective has not fallen below its least value by more than a tolerance."""

    memory = ("_least", "_waited")

    def __init__(self, told: Told, patience: int, tolerance: float) -> None:
        super().__init__(told)
        self._patience, self._tolerance = patience, tolerance
        self._least, self._waited = math.inf, 0

    def see(self) -> None:
        """Count the steps, or begin again."""
        value = self.told.value
        self._waited = 0 if value < self._least - least_change(self._tolerance, value) else self._waited + 1
        self._least = min(self._least, value)

    def reason(self) -> int | None:
        """The status, if it is so."""
        return PATIENCE if self._waited >= self._patience else None


class TimeLimit(Test):
    """It has run for so many seconds."""

    def __init__(self, told: Told, seconds: float) -> None:
        super().__init__(told)
        self._deadline = time.monotonic() + seconds

    def reason(self) -> int | None:
        """The status, if it is so."""
        return TIME if time.monotonic() >= self._deadline else None


class EnoughSteps(Test):
    """So many steps were taken."""

    def __init__(self, told: Told, steps: int) -> None:
        super().__init__(told)
        self._steps = steps

    def reason(self) -> int | None:
        """The status, if it is so."""
        return MAXITER if self.told.nit >= self._steps else None


def tests_of(own: Mapping[str, Any], told: Told, bounds: Box | None) -> list[Test]:
    """The tests that options ask for, in the order in which they count."""
    tests: list[Test] = []
    if own["gtol"] is not None:
        tests.append(SmallGradient(told, own["gtol"], bounds))
    if own["xtol"] is not None:
        tests.append(SmallStep(told, own["xtol"]))
    if own["patience"] is not None:
        tests.append(NoImprovement(told, own["patience"], own["ftol"] or 0.0))
    elif own["ftol"] is not None:
        tests.append(SmallChange(told, own["ftol"]))
    if own["time_limit"] is not None:
        tests.append(TimeLimit(told, own["time_limit"]))
    return [*tests, EnoughSteps(told, own["maxiter"])]


def is_success(status: int | None, own: Mapping[str, Any], has_improved: bool) -> bool:
    """Whether a minimization that ended so did what was asked for.

    Reaching the number of steps is that where no tolerance was asked for; ending for lack of improvement, if there was some.
    """
    if status == MAXITER:
        return all(own[key] is None for key in TOLERANCES)
    return status in (REACHED, PLATEAU) or (status == PATIENCE and has_improved)


def least_change(tolerance: float, value: float) -> float:
    """A relative tolerance as a change of the objective."""
    return tolerance * max(1.0, abs(value)) if math.isfinite(value) else 0.0
