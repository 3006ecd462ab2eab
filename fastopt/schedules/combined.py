"""Schedules made of schedules: one after the other, and several side by side."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastopt.description.hyperparameters import finite
from fastopt.schedules.common import Schedule, beginnings, require_finite, require_lengths, sequence, value_of
from fastopt.schedules.nested import Nested


@dataclass(frozen=True)
class Joined(Nested):
    """One schedule after the other, each beginning with step 0 of its own.

    Parameters
    ----------
    schedules : sequence of callable or float
        The schedules.
    boundaries : sequence of int
        The steps at which all but the first begin, in order.

    Examples
    --------
    >>> from fastopt.schedules import Joined, Linear
    >>> [Joined([Linear(0.0, 1.0, steps=2), 0.25], [3])(step) for step in range(5)]
    [0.0, 0.5, 1.0, 0.25, 0.25]
    """

    schedules: Sequence[float | Schedule]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", sequence("schedules", self.schedules))
        object.__setattr__(self, "boundaries", beginnings("boundaries", self.boundaries))
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(f"{len(self.schedules)} schedules need one boundary less, got {len(self.boundaries)}")
        if any(a >= b for a, b in itertools.pairwise([0, *self.boundaries])):
            raise ValueError(f"boundaries must be more than 0 and grow, got {self.boundaries!r}")

    def _parts(self) -> Iterator[tuple[str, Any]]:
        return ((f"schedules[{i}]", each) for i, each in enumerate(self.schedules))

    def __call__(self, step: int) -> Any:
        """The value after so many steps."""
        i = bisect.bisect_right(self.boundaries, step)
        return value_of(self.schedules[i], step - (self.boundaries[i - 1] if i else 0))


@dataclass(frozen=True)
class Warmup(Nested):
    """A line up to another schedule, which begins after it.

    The line goes to where the other schedule begins at present: if that is a `ReduceOnPlateau` which is reduced meanwhile, the
    line follows it.

    Parameters
    ----------
    then : callable or float
        The other schedule, or a value that stays.
    steps : int
        Steps of the line.
    start : float, default 0
        Where it begins.

    Examples
    --------
    >>> from fastopt.schedules import Cosine, Warmup
    >>> [round(Warmup(Cosine(1.0, steps=4), steps=2)(step), 2) for step in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """

    then: float | Schedule
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        require_lengths(self, "steps")
        require_finite(self, "start")
        self._goal()

    def __call__(self, step: int) -> Any:
        """The value after so many steps."""
        if step >= self.steps:
            return value_of(self.then, step - self.steps)
        goal = self._goal()
        return goal + (self.start - goal) * (1.0 - step / self.steps)

    def _goal(self) -> float:
        return finite("then(0)" if callable(self.then) else "then", value_of(self.then, 0))

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield "then", self.then


@dataclass(frozen=True)
class Pair(Nested):
    """Several schedules for a hyper-parameter of several numbers, such as ``betas``.

    Parameters
    ----------
    *parts : callable or float
        A schedule or a value for each.

    Examples
    --------
    >>> from fastopt.schedules import Linear, Pair
    >>> Pair(Linear(0.5, 1.0, steps=2), 0.999)(1)
    (0.75, 0.999)
    """

    parts: tuple[float | Schedule, ...]

    def __init__(self, *parts: float | Schedule) -> None:
        object.__setattr__(self, "parts", parts)

    def _parts(self) -> Iterator[tuple[str, Any]]:
        return ((f"parts[{i}]", each) for i, each in enumerate(self.parts))

    def __call__(self, step: int) -> tuple[Any, ...]:
        """The values after so many steps."""
        return tuple(value_of(part, step) for part in self.parts)
