"""What each hyper-parameter may be, by its name: one check for all optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
    rates = tuple(decay(f"{name}[{i}]", rate) for i, rate in enumerate(value))
    if len(rates) != 2:
        raise ValueError(f"{name} must be a pair of numbers, got {len(rates)}")
    return rates


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
    if value not in ("squares", "rates"):
        raise ValueError(f'{name} must be "squares" or "rates", got {value!r}')
    return str(value)


def _real(name: str, value: Any) -> float:
    # A 0-d array is a number too; a string is not, although float() would read it.
    unreal = isinstance(value, (str, bytes, bool)) or np.ndim(value) != 0 or np.iscomplexobj(value)
    if unreal or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return float(value)


# lr is not here: it may be an array in the shape of the parameters, or a schedule (see `groups.Group`).
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "accumulate": accumulation,
    "betas": decay_pair,
    "dampening": finite,
    "eps": nonnegative,
    "momentum": nonnegative,
    "nesterov": boolean,
    "rho": decay,
}
