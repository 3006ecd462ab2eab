"""Derivatives by finite differences, without leaving any bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]


def differences(fun: Callable[[Vector], float], x: Vector, value: float, sides: tuple[Vector, Vector] | None) -> Vector:
    """The gradient of a function from its values a small step away from a point.

    Each variable moves up by the root of the machine epsilon, times its size if that is more than 1. At a bound it moves down
    instead, or in a narrower interval as far as there is room. Where there is none it can't change, and the derivative is 0.

    Parameters
    ----------
    fun : callable
        Gives the value at a point, which it gets read-only; called once for each variable that can move.
    x : ndarray, shape (n,)
        The point; only read.
    value : float
        The function there.
    sides : pair of ndarray, shape (n,), or None
        Bounds of the dtype of `x`, between which it lies.

    Returns
    -------
    ndarray, shape (n,)
        Of the dtype of `x`.
    """
    moved = _moved(x, sides)
    steps = (moved.astype(np.float64) - x).tolist()
    point = x.copy()
    seen = point.view()
    seen.flags.writeable = False
    gradient = []
    for i, step in enumerate(steps):
        point[i] = moved[i]
        gradient.append((fun(seen) - value) / step if step else 0.0)
        point[i] = x[i]
    with np.errstate(all="ignore"):  # what is too large becomes infinite
        return np.array(gradient).astype(x.dtype)


@np.errstate(all="ignore")
def _moved(x: Vector, sides: tuple[Vector, Vector] | None) -> Vector:
    """Each variable a small step away."""
    largest = np.finfo(x.dtype).max
    low, high = (-largest, largest) if sides is None else (np.maximum(sides[0], -largest), np.minimum(sides[1], largest))
    step = math.sqrt(np.finfo(x.dtype).eps) * np.maximum(np.abs(x), 1)
    up, down = x + step, x - step
    farthest = np.where(high - x >= x - low, high, low)
    moved = np.where(up <= high, up, np.where(down >= low, down, farthest))
    return moved.astype(x.dtype, copy=False)
