"""Schedules: callables that give a hyper-parameter's value from the number of steps taken so far, 0 for the first step.

Values are absolute, and beyond a schedule's last step its value stays. All but `ReduceOnPlateau` are immutable, compare equal
if their numbers do, and can be pickled.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastopt.hyperparameters import boolean, finite, nonnegative

Schedule = Callable[[int], Any]

__all__ = [
    "Constant",
    "Cosine",
    "CosineWarmRestarts",
    "Exponential",
    "Joined",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Pair",
    "Polynomial",
    "ReduceOnPlateau",
    "Step",
    "Warmup",
]


def _require_finite(schedule: object, *names: str) -> None:
    for name in names:
        finite(name, getattr(schedule, name))


def _require_positive(schedule: object, *names: str) -> None:
    for name in names:
        if not finite(name, value := getattr(schedule, name)) > 0:
            raise ValueError(f"{name} must be more than 0, got {value!r}")


def _between(start: float, end: float, share: float) -> float:
    """The cosine from one value to another: half a wave."""
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0


def _value(of: float | Schedule, step: int) -> Any:
    return of(step) if callable(of) else of


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
        _require_finite(self, "value")
        if (self.steps is None) != (self.then is None):
            raise ValueError(f"steps and then belong together, got steps={self.steps!r}, then={self.then!r}")
        if self.steps is not None:
            _require_positive(self, "steps")
            _require_finite(self, "then")

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
        _require_finite(self, "initial", "final")
        _require_positive(self, "steps", "power")
        nonnegative("begin", self.begin)

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
        _require_finite(self, "initial", "factor")
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        return self.initial * float(self.factor ** bisect.bisect_right(self.milestones, step))


@dataclass(frozen=True)
class Exponential:
    r"""Decay by a factor over so many steps: :math:`a f^{t/n}`, not beyond a last value.

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
        The value goes no further.

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
        _require_finite(self, "initial")
        _require_positive(self, "factor", "steps")
        boolean("staircase", self.staircase)
        nonnegative("begin", self.begin)
        if self.final is not None:
            _require_finite(self, "final")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        exponent = max(step - self.begin, 0) / self.steps
        value = self.initial * float(self.factor ** (math.floor(exponent) if self.staircase else exponent))
        if self.final is None:
            return value
        return max(value, self.final) if self.factor < 1 else min(value, self.final)


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
        _require_finite(self, "initial", "final")
        _require_positive(self, "steps", "power")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        share = min(step / self.steps, 1.0)
        return self.final + (self.initial - self.final) * math.pow(_between(1.0, 0.0, share), self.power)


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
        _require_finite(self, "initial", "final")
        _require_positive(self, "period")
        if self.factor != int(self.factor) or self.factor < 1:
            raise ValueError(f"factor must be an integer of at least 1, got {self.factor!r}")

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        period = self.period
        if self.factor == 1:
            step %= period
        while step >= period:
            step, period = step - period, period * self.factor
        return _between(self.initial, self.final, step / period)


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
    >>> [round(OneCycle(1.0, steps=10, linear=True)(step), 2) for step in (0, 1, 2, 9, 50)]
    [0.04, 0.52, 1.0, 0.0, 0.0]
    """

    highest: float
    steps: int
    up: float = 0.3
    first_divisor: float = 25.0
    last_divisor: float = 1e4
    linear: bool = False
    three_phase: bool = False

    def __post_init__(self) -> None:
        _require_finite(self, "highest")
        _require_positive(self, "steps", "first_divisor", "last_divisor")
        if not 0 <= finite("up", self.up) <= (0.5 if self.three_phase else 1.0):
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
                return start + (goal - start) * share if self.linear else _between(start, goal, share)
        raise AssertionError("the last way has no end")  # pragma: no cover


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
        return _value(self.schedules[i], step - (self.boundaries[i - 1] if i else 0))


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
    return Joined([Linear(start, _value(then, 0), steps), then], [steps])


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
        return tuple(_value(part, step) for part in self.parts)


@dataclass
class ReduceOnPlateau:
    """Multiplied by a factor whenever a metric has not improved for some time, as in PyTorch.

    Call `update` with each new value of the metric. The optimizer's state dict has what it remembers.

    Parameters
    ----------
    initial : float
        The value at first.
    factor : float, default 0.1
        What it is multiplied by, less than 1.
    patience : int, default 10
        How many updates without improvement are tolerated.
    threshold : float, default 1e-4
        What counts as an improvement.
    mode : {"min", "max"}, default "min"
        Whether the metric should become small or large.
    relative : bool, default True
        Whether the threshold is relative to the best metric.
    cooldown : int, default 0
        Updates after a reduction in which none is counted.
    lowest : float, default 0
        The value goes no further down.
    eps : float, default 1e-8
        Smaller changes of the value are left out.

    Examples
    --------
    >>> from fastopt.schedules import ReduceOnPlateau
    >>> schedule = ReduceOnPlateau(1.0, factor=0.5, patience=1)
    >>> values = []
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     schedule.update(loss)
    ...     values.append(schedule(0))
    >>> values
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    initial: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    mode: str = "min"
    relative: bool = True
    cooldown: int = 0
    lowest: float = 0.0
    eps: float = 1e-8
    _memory: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _require_finite(self, "initial", "threshold", "lowest", "eps")
        if not 0 < finite("factor", self.factor) < 1:
            raise ValueError(f"factor must be more than 0 and less than 1, got {self.factor!r}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        best = math.inf if self.mode == "min" else -math.inf
        self._memory = {"value": self.initial, "best": best, "bad": 0, "cooling": 0}

    def __call__(self, step: int) -> float:
        """The present value, whatever the step."""
        return self._memory["value"]

    def update(self, metric: float) -> None:
        """Take a new value of the metric.

        Parameters
        ----------
        metric : float
            For example the loss on validation data after an epoch.
        """
        memory = self._memory
        metric = float(metric)
        if self._is_better(metric, memory["best"]):
            memory |= {"best": metric, "bad": 0}
        else:
            memory["bad"] += 1
        if memory["cooling"] > 0:
            memory |= {"cooling": memory["cooling"] - 1, "bad": 0}
        if memory["bad"] > self.patience:
            reduced = max(memory["value"] * self.factor, self.lowest)
            if memory["value"] - reduced > self.eps:
                memory["value"] = reduced
            memory |= {"cooling": self.cooldown, "bad": 0}

    def state_dict(self) -> dict[str, float]:
        """What it remembers.

        Returns
        -------
        dict
            Plain numbers.
        """
        return dict(self._memory)

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave.

        Parameters
        ----------
        state_dict : mapping
            From a schedule with the same arguments.

        Raises
        ------
        ValueError
            If its keys are other ones. Nothing is changed then.
        """
        if set(state_dict) != set(self._memory):
            raise ValueError(f"the state of ReduceOnPlateau has the keys {sorted(self._memory)}, got {sorted(state_dict)}")
        self._memory = {key: float(value) for key, value in state_dict.items()}

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if not self.relative:
            return sign * metric < sign * best - self.threshold
        return sign * metric < sign * best * (1.0 - sign * self.threshold if math.isfinite(best) else 1.0)
