"""Derivatives by finite differences, without leaving any bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.minimization.bounds import Box

Vector = NDArray[Any]
Limits = tuple[Vector, Vector] | None

# As SciPy calls them: from one side, from both sides, and by complex steps.
SCHEMES = ("2-point", "3-point", "cs")


def differences(fun: Callable[[Vector], Any], x: Vector, value: float, bounds: Box | None, scheme: str = "2-point") -> Vector:
    """The gradient of a function from its values a small step away from a point.

    With ``"2-point"`` each variable moves up by the root of the machine epsilon, times its size if that is more than 1. At a
    bound it moves down instead, or in a narrower interval as far as there is room. Where there is none it can't change, and the
    derivative is 0. With ``"3-point"`` it moves by the third root, up and down, or twice to the side with more room, if a bound
    is too near for both. With ``"cs"`` its imaginary part moves, by so little that no digit is lost: for functions that compute
    with complex numbers as with real ones.

    Parameters
    ----------
    fun : callable
        Gives the value at a point, an array of its own each time; called once for each variable that can move, twice with
        "3-point".
    x : ndarray, shape (n,)
        The point; only read. Real and imaginary parts of complex variables move one after the other.
    value : float
        The function there.
    bounds : Box or None
        In which it lies.
    scheme : {"2-point", "3-point", "cs"}

    Returns
    -------
    ndarray, shape (n,)
        Of the dtype of `x`.
    """
    if scheme == "cs":
        return _by_complex_steps(fun, x)
    theta = parts(x)
    limits = None if bounds is None else (bounds.lower, bounds.upper)

    def at(i: int, place: Any) -> Any:
        point = x.copy()
        parts(point)[i] = place
        return fun(point)

    gradient = _from_one_side(at, theta, value, limits) if scheme == "2-point" else _from_both(at, theta, value, limits)
    with np.errstate(all="ignore"):  # what is too large becomes infinite
        return np.array(gradient).astype(theta.dtype).view(x.dtype)


def _from_one_side(at: Callable[[int, Any], Any], theta: Vector, value: float, limits: Limits) -> list[float]:
    moved = _moved(theta, limits, 1 / 2)
    steps = (moved.astype(np.float64) - theta).tolist()
    return [(at(i, moved[i]) - value) / step if step else 0.0 for i, step in enumerate(steps)]


def _from_both(at: Callable[[int, Any], Any], theta: Vector, value: float, limits: Limits) -> list[float]:
    near = _moved(theta, limits, 1 / 3, times=2)  # so that there is room for two steps
    near = theta + (near - theta) / 2
    back = 2 * theta - near
    far = 2 * near - theta
    inside = np.full(theta.size, True) if limits is None else (limits[0] <= back) & (back <= limits[1])
    gradient = []
    for i in range(theta.size):
        step = float(near[i]) - float(theta[i])
        if step == 0.0:
            gradient.append(0.0)
        elif inside[i]:
            gradient.append((at(i, near[i]) - at(i, back[i])) / (float(near[i]) - float(back[i])))
        else:
            gradient.append((4.0 * at(i, near[i]) - 3.0 * value - at(i, far[i])) / (float(far[i]) - float(theta[i])))
    return gradient


def _by_complex_steps(fun: Callable[[Vector], Any], x: Vector) -> Vector:
    if x.dtype.kind == "c":
        raise ValueError('jac="cs" must have real variables, got complex ones')
    steps = (np.finfo(x.dtype).eps * np.maximum(np.abs(x), 1)).tolist()
    gradient = []
    for i, step in enumerate(steps):
        point = x.astype(np.result_type(x.dtype, np.complex64))
        point.imag[i] = step
        gradient.append(np.asarray(fun(point)).imag.item() / step)
    return np.array(gradient).astype(x.dtype)


@np.errstate(all="ignore")
def _moved(x: Vector, limits: Limits, power: float, times: int = 1) -> Vector:
    """Each variable so many small steps away, each by a root of the machine epsilon."""
    largest = np.finfo(x.dtype).max
    low, high = (-largest, largest) if limits is None else (np.maximum(limits[0], -largest), np.minimum(limits[1], largest))
    step = times * math.pow(np.finfo(x.dtype).eps, power) * np.maximum(np.abs(x), 1)
    up, down = x + step, x - step
    farthest = np.where(high - x >= x - low, high, low)
    moved = np.where(up <= high, up, np.where(down >= low, down, farthest))
    return moved.astype(x.dtype, copy=False)
