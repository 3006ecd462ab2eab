"""Schedules along a cosine: once down, down again and again, or up and down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastopt.description.hyperparameters import finite
from fastopt.schedules.common import (
    between,
    require_booleans,
    require_finite,
    require_integers,
    require_lengths,
    require_positive,
)


@dataclass(frozen=True)
class Cosine:
    r"""Half a wave of the cosine from one value to another: :math:`b + (a - b) \bigl(\frac{1 + \cos \pi s}{2}\bigr)^p`.

    Parameters
    ----------
    initial : float
        :math:`a`.
    steps : int
        Length of the way, of which :math:`s` is the share that is done.
    final : float, default 0
        :math:`b`.
    power : float, default 1
        :math:`p`.

    References
    ----------
    .. [1] Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5.

    Examples
    --------
    >>> from fastopt.schedules import Cosine
    >>> [round(Cosine(1.0, steps=4)(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    initial: float
    steps: int
    final: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        require_finite(self, "initial", "final")
        require_positive(self, "power")
        require_lengths(self, "steps")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        share = min(step / self.steps, 1.0)
        return self.final + (self.initial - self.final) * math.pow(between(1.0, 0.0, share), self.power)


@dataclass(frozen=True)
class CosineWarmRestarts:
    """Half waves of the cosine, one after the other, each begun anew at the first value.

    Parameters
    ----------
    initial : float
        The value at each start.
    period : int
        Steps of the first half wave.
    factor : int, default 1
        How many times as long each is as the one before.
    final : float, default 0
        The value that each goes to.

    References
    ----------
    .. [1] Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from fastopt.schedules import CosineWarmRestarts
    >>> [round(CosineWarmRestarts(1.0, period=2)(step), 3) for step in range(5)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    initial: float
    period: int
    factor: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        require_finite(self, "initial", "final")
        require_lengths(self, "period")
        require_integers(self, factor=1)

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        period = self.period
        if self.factor == 1:
            step %= period
        while step >= period:
            step, period = step - period, period * self.factor
        return between(self.initial, self.final, step / period)


@dataclass(frozen=True)
class OneCycle:
    """Up to the highest value, down to the start, and further down, as in PyTorch's `OneCycleLR`.

    Parameters
    ----------
    highest : float
        The value at the top.
    steps : int
        Steps of the whole cycle.
    up : float, default 0.3
        Share of the steps on the way up.
    first_divisor : float, default 25
        The first value is the highest one divided by this.
    last_divisor : float, default 1e4
        The last value is the first one divided by this.
    linear : bool, default False
        Whether the value goes along lines instead of half waves of the cosine.
    three_phase : bool, default False
        Whether the way down has two parts: to the first value in as many steps as up, and then to the last one.

    References
    ----------
    .. [1] Smith, Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018.

    Examples
    --------
    >>> from fastopt.schedules import OneCycle
    >>> [round(OneCycle(1.0, steps=10, linear=True)(step), 2) for step in (0, 2, 9, 50)]
    [0.04, 1.0, 0.0, 0.0]
    """

    highest: float
    steps: int
    up: float = 0.3
    first_divisor: float = 25.0
    last_divisor: float = 1e4
    linear: bool = False
    three_phase: bool = False

    def __post_init__(self) -> None:
        require_finite(self, "highest")
        require_positive(self, "first_divisor", "last_divisor")
        require_lengths(self, "steps")
        require_booleans(self, "linear", "three_phase")
        finite("highest / first_divisor / last_divisor", self.highest / self.first_divisor / self.last_divisor)
        require_finite(self, "up")
        if not 0 <= self.up <= (0.5 if self.three_phase else 1.0):
            raise ValueError(f"up must be a share of at most {0.5 if self.three_phase else 1.0}, got {self.up!r}")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        first = self.highest / self.first_divisor
        top, end, last = self.up * self.steps - 1, self.steps - 1, first / self.last_divisor
        ways = [(0.0, top, first, self.highest), (top, end, self.highest, last)]
        if self.three_phase:
            back = 2 * self.up * self.steps - 2
            ways[1:] = [(top, back, self.highest, first), (back, end, first, last)]
        for begin, stop, start, goal in ways:
            if step <= stop or stop == end:
                share = min((step - begin) / (stop - begin), 1.0) if stop > begin else 1.0
                return start + (goal - start) * share if self.linear else between(start, goal, share)
        raise AssertionError("the last way has no end")  # pragma: no cover
