"""What schedules share: checks of their arguments, half a wave, and values that may be schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastopt.hyperparameters import finite

Schedule = Callable[[int], Any]


def require_finite(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are finite numbers."""
    for name in names:
        finite(name, getattr(schedule, name))


def require_positive(schedule: object, *names: str) -> None:
    """Raise TypeError or ValueError unless these attributes are finite numbers above 0."""
    for name in names:
        if not finite(name, value := getattr(schedule, name)) > 0:
            raise ValueError(f"{name} must be more than 0, got {value!r}")


def require_integers(schedule: object, **least: int) -> None:
    """Raise TypeError or ValueError unless these attributes are integers of at least so much."""
    for name, smallest in least.items():
        value = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value!r}")


def between(start: float, end: float, share: float) -> float:
    """The cosine from one value to another: half a wave."""
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0


def value_of(of: float | Schedule, step: int) -> Any:
    """The number itself, or what a schedule gives."""
    return of(step) if callable(of) else of
