"""What hyper-parameters may be: their checks, and what these make of the values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Gives the value in its plain form, or raises TypeError or ValueError with the name in the message.
Check = Callable[[str, Any], Any]


def nonnegative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    number = real(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return number


def nonnegative_or_infinite(name: str, value: Any) -> float:
    """A number of at least 0, infinity too."""
    number = real(name, value)
    if not number >= 0:
        raise ValueError(f"{name} must be at least 0, got {value!r}")
    return number


def decay(name: str, value: Any) -> float:
    """A decay rate: at least 0 and less than 1."""
    number = real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return number


def decays(count: int) -> Check:
    """A check for a tuple of so many decay rates."""
    return _several(count, decay)


def nonnegatives(count: int) -> Check:
    """A check for a tuple of so many finite numbers of at least 0."""
    return _several(count, nonnegative)


def _several(count: int, each: Check) -> Check:
    def check(name: str, value: Any) -> tuple[float, ...]:
        if not isinstance(value, (tuple, list, np.ndarray)) or (isinstance(value, np.ndarray) and value.ndim == 0):
            raise TypeError(f"{name} must be {count} numbers, got {value!r}")
        if len(value) != count:
            raise ValueError(f"{name} must be {count} numbers, got {len(value)}")
        return tuple(each(f"{name}[{i}]", item) for i, item in enumerate(value))

    return check


def positive_or_none(name: str, value: Any) -> float | None:
    """A finite number of more than 0, or None."""
    if value is None:
        return None
    number = real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be None or a finite number of more than 0, got {value!r}")
    return number


def limit_or_none(name: str, value: Any) -> float | None:
    """A number of more than 0, infinity too, or None."""
    number = None if value is None else real(name, value)
    if number is not None and not number > 0:
        raise ValueError(f"{name} must be None or a number of more than 0, got {value!r}")
    return number


def share_or_none(name: str, value: Any) -> float | None:
    """A number from 0 to 1, or None."""
    number = None if value is None else real(name, value)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"{name} must be None or in [0, 1], got {value!r}")
    return number


def finite(name: str, value: Any) -> float:
    """Any finite number."""
    number = real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


class OneOf:
    """A check for one of some words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, name: str, value: Any) -> str:
        """The word, if it is one of them."""
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"{name} must be {' or '.join(map(repr, self.choices))}, got {value!r}")
        return value


def real(name: str, value: Any) -> float:
    """Any number, infinity and NaN too."""
    number: Any = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    # NumPy counts a time difference among the integers, and Python a truth value.
    if not isinstance(number, numbers.Real) or isinstance(number, (bool, np.timedelta64)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got an integer too large for one") from None


def checked(checks: Mapping[str, Check], name: str, value: Any, label: str | None = None) -> Any:
    """The value in its plain form, if its check lets it pass; without a check any finite number does."""
    check: Check = checks.get(name, finite)
    return check(label or name, value)


def is_choice(checks: Mapping[str, Check], name: str) -> bool:
    """Whether a hyper-parameter chooses what is done, so that it can't follow a schedule."""
    check = checks.get(name)
    return check is boolean or isinstance(check, OneOf)
