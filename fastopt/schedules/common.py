"""What schedules share: checks of their arguments, half a wave, growth, and values that may be schedules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastopt.description.hyperparameters import Check, boolean, finite, integer, nonnegative, positive

Schedule = Callable[[int], Any]


def _take(schedule: object, names: tuple[str, ...], check: Check) -> None:
    """Check attributes, and keep Python's own numbers in their place."""
    for name in names:
        object.__setattr__(schedule, name, check(name, getattr(schedule, name)))  # most schedules are frozen


def require_finite(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are finite numbers."""
    _take(schedule, names, finite)


def require_positive(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are finite numbers above 0."""
    _take(schedule, names, positive)


def require_nonnegative(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are finite numbers of at least 0."""
    _take(schedule, names, nonnegative)


def require_booleans(schedule: object, *names: str) -> None:
    """Raise TypeError unless these attributes are True or False."""
    _take(schedule, names, boolean)


def require_integers(schedule: object, **least: int) -> None:
    """Raise TypeError or ValueError unless these attributes are integers of at least so much."""
    for name, smallest in least.items():
        _take(schedule, (name,), functools.partial(integer, least=smallest))


def require_lengths(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are numbers of steps, more than 0."""
    _take(schedule, names, _length)


def require_beginnings(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are numbers of steps, 0 or more."""
    _take(schedule, names, _beginning)


def sequence(name: str, values: Any) -> tuple[Any, ...]:
    """The items of a sequence; raise TypeError if it is none."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence, got {values!r}")
    return tuple(values)


def beginnings(name: str, values: Any) -> tuple[float, ...]:
    """Numbers of steps; raise TypeError or ValueError if they are none."""
    return tuple(_beginning(f"{name}[{i}]", each) for i, each in enumerate(sequence(name, values)))


def _length(name: str, value: Any) -> float:
    return _whole(positive(name, value))


def _beginning(name: str, value: Any) -> float:
    return _whole(nonnegative(name, value))


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def between(start: float, end: float, share: float) -> float:
    """The cosine from one value to another: half a wave."""
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0


def multiplied(initial: float, factor: float, times: float) -> float:
    """A value multiplied by a factor so many times; infinite where it is too large for a number."""
    try:
        power = math.pow(factor, times)
    except OverflowError:
        power = math.inf
    return initial * power if initial else initial


def require_number(schedule: object, value: float, step: int) -> float:
    """The value of a schedule after so many steps; raise ValueError if it has become too large for a number."""
    if not math.isfinite(value):
        raise ValueError(f"{schedule!r} must give finite numbers, but after {step} steps its value is too large for one")
    return value


def value_of(of: float | Schedule, step: int) -> Any:
    """The number itself, or what a schedule gives."""
    return of(step) if callable(of) else of
