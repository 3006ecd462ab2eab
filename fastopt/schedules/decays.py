"""Schedules that stay, or go from one value to another by a power, by a factor, or in steps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastopt.schedules.common import (
    beginnings,
    multiplied,
    require_beginnings,
    require_booleans,
    require_finite,
    require_lengths,
    require_number,
    require_positive,
)


@dataclass(frozen=True)
class Constant:
    """The same value at every step; with `steps`, another one from that step on.

    Parameters
    ----------
    value : float
        The value.
    steps : int, optional
        For how many steps it holds.
    then : float, optional
        The value after that.

    Examples
    --------
    >>> from fastopt.schedules import Constant
    >>> [Constant(0.5, steps=2, then=1.0)(step) for step in range(4)]
    [0.5, 0.5, 1.0, 1.0]
    """

    value: float
    steps: int | None = None
    then: float | None = None

    def __post_init__(self) -> None:
        require_finite(self, "value")
        if (self.steps is None) != (self.then is None):
            raise ValueError(f"steps and then belong together, got steps={self.steps!r}, then={self.then!r}")
        if self.steps is not None:
            require_lengths(self, "steps")
            require_finite(self, "then")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        return self.value if self.steps is None or self.then is None or step < self.steps else self.then


@dataclass(frozen=True)
class Polynomial:
    r"""From one value to another along a power: :math:`b + (a - b)(1 - s)^p` with the share :math:`s` of the way.

    Parameters
    ----------
    initial, final : float
        :math:`a` and :math:`b`.
    steps : int
        Length of the way.
    power : float, default 1
        :math:`p`.
    begin : int, default 0
        Steps before it begins.

    Examples
    --------
    >>> from fastopt.schedules import Polynomial
    >>> [Polynomial(1.0, 0.0, steps=4, power=2)(step) for step in (0, 2, 4, 100)]
    [1.0, 0.25, 0.0, 0.0]
    """

    initial: float
    final: float
    steps: int
    power: float = 1.0
    begin: int = 0

    def __post_init__(self) -> None:
        require_finite(self, "initial", "final")
        require_positive(self, "power")
        require_lengths(self, "steps")
        require_beginnings(self, "begin")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        share = min(max(step - self.begin, 0) / self.steps, 1.0)
        return self.final + (self.initial - self.final) * math.pow(1.0 - share, self.power)


def Linear(initial: float, final: float, steps: int, begin: int = 0) -> Polynomial:  # noqa: N802 - named as its siblings
    """From one value to another along a line.

    Parameters
    ----------
    initial, final : float
        The values at its ends.
    steps : int
        Length of the way.
    begin : int, default 0
        Steps before it begins.

    Returns
    -------
    Polynomial
        With the power 1.

    Examples
    --------
    >>> from fastopt.schedules import Linear
    >>> [Linear(1.0, 0.0, steps=4)(step) for step in (0, 1, 4, 5)]
    [1.0, 0.75, 0.0, 0.0]
    """
    return Polynomial(initial, final, steps, begin=begin)


@dataclass(frozen=True)
class MultiStep:
    """Multiplied by a factor at each milestone.

    Parameters
    ----------
    initial : float
        The value at first.
    milestones : sequence of int
        The steps at which the value changes; one that stands twice counts twice.
    factor : float, default 0.1
        What it is multiplied by.

    Examples
    --------
    >>> from fastopt.schedules import MultiStep
    >>> [MultiStep(1.0, [2, 3], factor=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    initial: float
    milestones: Sequence[int]
    factor: float = 0.1

    def __post_init__(self) -> None:
        require_finite(self, "initial", "factor")
        object.__setattr__(self, "milestones", tuple(sorted(beginnings("milestones", self.milestones))))

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        value = multiplied(self.initial, self.factor, bisect.bisect_right(self.milestones, step))
        return require_number(self, value, step)


@dataclass(frozen=True)
class Exponential:
    r"""Decay or growth by a factor over so many steps: :math:`a f^{t/n}`, not beyond a last value.

    Parameters
    ----------
    initial : float
        :math:`a`.
    factor : float
        :math:`f`.
    steps : int, default 1
        :math:`n`.
    staircase : bool, default False
        Whether the exponent is rounded down, so that the value changes every `steps` steps.
    begin : int, default 0
        Steps before it begins.
    final : float, optional
        The value goes no further. Growth without it raises ValueError where the value is too large for a number.

    Examples
    --------
    >>> from fastopt.schedules import Exponential
    >>> [Exponential(1.0, 0.5, steps=2, staircase=True)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    initial: float
    factor: float
    steps: int = 1
    staircase: bool = False
    begin: int = 0
    final: float | None = None

    def __post_init__(self) -> None:
        require_finite(self, "initial")
        require_positive(self, "factor")
        require_lengths(self, "steps")
        require_beginnings(self, "begin")
        require_booleans(self, "staircase")
        if self.final is not None:
            require_finite(self, "final")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        exponent = max(step - self.begin, 0) / self.steps
        value = multiplied(self.initial, self.factor, math.floor(exponent) if self.staircase else exponent)
        if self.final is None:
            return require_number(self, value, step)
        rises = (self.factor < 1) == (self.initial < 0)
        return min(value, self.final) if rises else max(value, self.final)


def Step(initial: float, every: int, factor: float = 0.1) -> Exponential:  # noqa: N802 - named as its siblings
    """Multiplied by a factor every so many steps.

    Parameters
    ----------
    initial : float
        The value at first.
    every : int
        After how many steps it changes.
    factor : float, default 0.1
        What it is multiplied by.

    Returns
    -------
    Exponential
        In stairs.

    Examples
    --------
    >>> from fastopt.schedules import Step
    >>> [Step(1.0, every=2, factor=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return Exponential(initial, factor, every, staircase=True)
