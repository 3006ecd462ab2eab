"""What each hyper-parameter may be, by its name: one check for all optimizers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np


def nonnegative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    number = _real(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return number


def decay(name: str, value: Any) -> float:
    """A decay rate: at least 0 and less than 1."""
    number = _real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return number


def decay_pair(name: str, value: Any) -> tuple[float, float]:
    """Two decay rates."""
    if not isinstance(value, (tuple, list, np.ndarray)) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair of numbers, got {len(value)}")
    return decay(f"{name}[0]", value[0]), decay(f"{name}[1]", value[1])


def finite(name: str, value: Any) -> float:
    """Any finite number."""
    number = _real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def accumulation(name: str, value: Any) -> str:
    """What an adaptive method sums up."""
    if not isinstance(value, str) or value not in ("squares", "rates"):
        raise ValueError(f'{name} must be "squares" or "rates", got {value!r}')
    return value


def _real(name: str, value: Any) -> float:
    number: Any = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    # NumPy counts a time difference among the integers, and Python a truth value.
    if not isinstance(number, numbers.Real) or isinstance(number, (bool, np.timedelta64)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got an integer too large for one") from None


def rate(name: str, value: Any) -> Any:
    """A number of at least 0, or a schedule."""
    return value if callable(value) else nonnegative(name, value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "accumulate": accumulation,
    "betas": decay_pair,
    "dampening": finite,
    "eps": nonnegative,
    "lr": rate,  # or an array for each parameter: see `groups.Group`
    "momentum": nonnegative,
    "nesterov": boolean,
    "rho": decay,
}


def checked(name: str, value: Any) -> Any:
    """The value in its plain form, if it is allowed; a name that is not in the table takes any finite number."""
    check: Callable[[str, Any], Any] = CHECKS.get(name, finite)
    return check(name, value)
