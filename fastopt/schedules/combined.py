"""Schedules made of schedules: one after the other, and several side by side."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastopt.schedules.common import Schedule, value_of
from fastopt.schedules.decays import Linear


@dataclass(frozen=True)
class Joined:
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
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(f"{len(self.schedules)} schedules need one boundary less, got {len(self.boundaries)}")
        if any(a >= b for a, b in itertools.pairwise([0, *self.boundaries])):
            raise ValueError(f"boundaries must be more than 0 and grow, got {self.boundaries!r}")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))

    def __call__(self, step: int) -> Any:
        """The value after so many steps."""
        i = bisect.bisect_right(self.boundaries, step)
        return value_of(self.schedules[i], step - (self.boundaries[i - 1] if i else 0))


def Warmup(then: float | Schedule, steps: int, start: float = 0.0) -> Joined:  # noqa: N802 - named as its siblings
    """A line up to another schedule, which begins after it.

    Parameters
    ----------
    then : callable or float
        The other schedule, or a value that stays.
    steps : int
        Steps of the line.
    start : float, default 0
        Where it begins.

    Returns
    -------
    Joined
        The line and the schedule.

    Examples
    --------
    >>> from fastopt.schedules import Cosine, Warmup
    >>> [round(Warmup(Cosine(1.0, steps=4), steps=2)(step), 2) for step in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return Joined([Linear(start, value_of(then, 0), steps), then], [steps])


@dataclass(frozen=True)
class Pair:
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

    def __call__(self, step: int) -> tuple[Any, ...]:
        """The values after so many steps."""
        return tuple(value_of(part, step) for part in self.parts)
