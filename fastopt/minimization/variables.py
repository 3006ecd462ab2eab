"""The variables: where they start, and the bounds between which they stay."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS, parts
from fastopt.description.hyperparameters import real

Sides = tuple[NDArray[Any], NDArray[Any]]


def start_of(x0: Any, name: str = "x0") -> NDArray[Any]:
    """A copy of the start in a floating dtype, in C order."""
    if np.ma.is_masked(x0):
        raise TypeError(f"{name} must have no mask, got {x0!r}; the option mask leaves variables as they are")
    try:
        x = np.array(x0, copy=True, order="C", subok=False)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an array of numbers, got {x0!r}") from None
    if x.dtype not in (*FLOATS, *COMPLEX):
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real or complex numbers, got {x.dtype}")
        x = x.astype(np.float64)
    return x


def sides_of(bounds: Any, rows: NDArray[Any]) -> Sides | None:
    """Lower and upper bounds in the dtype of the variables, between those that were given; starts are moved into them.

    Parameters
    ----------
    bounds : None, pairs of numbers or None, or `scipy.optimize.Bounds`
        As `minimize` takes them; those of complex variables may be complex, and hold for real and imaginary parts.
    rows : ndarray, shape (k, n)
        A start in each row, in place.

    Returns
    -------
    pair of ndarray, shape (k * n,), or None
    """
    if bounds is None:
        return None
    x = rows[0]
    low, high = _of_scipy(bounds, x) if hasattr(bounds, "lb") else _of_pairs(bounds, x)
    theta = parts(x)
    if x.dtype.kind == "c":
        low, high = (parts(side) if side.dtype.kind == "c" else np.repeat(side, 2) for side in (low, high))
    if wrong := np.flatnonzero(~(low <= high)).tolist():  # with NaN, too
        pair, variable = (low[wrong[0]].item(), high[wrong[0]].item()), wrong[0] // (theta.size // x.size)
        what = "no NaN" if np.isnan(pair).any() else "no lower bound above the upper one"
        raise ValueError(f"bounds must have {what}, got {pair} for variable {variable}")
    lower, upper = _rounded(low, theta.dtype, np.inf), _rounded(high, theta.dtype, -np.inf)
    between = lower <= upper
    if not np.all(between):  # no number of the dtype lies in the interval
        lower, upper = (np.where(between, side, low.astype(theta.dtype)) for side in (lower, upper))
    for row in rows:
        np.clip(parts(row), lower, upper, out=parts(row))
    return np.tile(lower.view(x.dtype), len(rows)), np.tile(upper.view(x.dtype), len(rows))


@np.errstate(over="ignore")
def _rounded(side: NDArray[Any], dtype: np.dtype[Any], towards: float) -> NDArray[Any]:
    """Bounds as numbers of a dtype, in this direction where they are none."""
    near = side.astype(dtype)
    outside = near < side if towards > 0 else near > side
    return np.where(outside, np.nextafter(near, dtype.type(towards)), near)


def _kinds(x: NDArray[Any]) -> str:
    """The kinds of dtypes that bounds of such variables may have."""
    return "biufc" if x.dtype.kind == "c" else "biuf"


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _of_scipy(bounds: Any, x: NDArray[Any]) -> Sides:
    sides = []
    for name in ("lb", "ub"):
        side = np.asarray(getattr(bounds, name))
        if side.dtype.kind not in _kinds(x):
            raise TypeError(f"bounds.{name} must hold real numbers, got {side.dtype}")
        if side.size != 1 and side.size != x.size:
            raise ValueError(f"bounds.{name} must have an item for each of {x.size} variables, got {side.size}")
        sides.append(np.broadcast_to(_widened(side).reshape(-1), x.size).copy())
    return sides[0], sides[1]


def _of_pairs(bounds: Any, x: NDArray[Any]) -> Sides:
    try:
        pairs = np.asarray(bounds if hasattr(bounds, "__array__") else list(bounds))
    except (TypeError, ValueError):  # no sequence, or items of several lengths
        pairs = np.array("")
    if np.ma.is_masked(bounds) or pairs.dtype.kind not in _kinds(x) + "O" or (pairs.size and pairs.shape[1:] != (2,)):
        raise TypeError(f"bounds must be pairs of numbers or None, or SciPy's Bounds, got {reprlib.repr(bounds)}")
    pairs = pairs.reshape(-1, 2)
    if len(pairs) != x.size:
        raise ValueError(f"bounds must be a pair for each of {x.size} variables, got {len(pairs)} items")
    if pairs.dtype.kind == "O":
        missing = [-np.inf, np.inf] * x.size
        values = [real("bounds", none if each is None else each) for each, none in zip(pairs.flat, missing, strict=True)]
        pairs = np.array(values).reshape(-1, 2)
    low, high = _widened(pairs).T.copy()
    return low, high
