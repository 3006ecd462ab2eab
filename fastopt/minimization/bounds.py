"""Bounds between which variables stay: boxes, and discs and rings for the moduli of complex ones."""

from __future__ import annotations

import itertools
import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.description.hyperparameters import real
from fastopt.engine.pairs import Pair
from fastopt.engine.values import clipped, held

Array = NDArray[Any]


class Box:
    """Bounds of each variable, of complex ones of each part.

    Parameters
    ----------
    lower, upper : ndarray, shape (m,)
        In the dtype of the parts; infinite for none.
    dtype : dtype
        That of the variables.
    """

    def __init__(self, lower: Array, upper: Array, dtype: np.dtype[Any]) -> None:
        self.lower, self.upper, self._dtype = lower, upper, dtype

    @property
    def for_steps(self) -> tuple[Array, Array]:
        """What optimizers take as their bounds, an item for each variable."""
        return self.lower.view(self._dtype), self.upper.view(self._dtype)

    def move_inside(self, x: Array) -> None:
        """Move a point to the next one inside, in place."""
        np.clip(parts(x), self.lower, self.upper, out=parts(x))

    def inward(self, x: Array, g: Array) -> Array:
        """The parts of the gradient at a point, with 0 for what would lead out of active bounds.

        That it is not cut where a step along it would meet a bound, as in SciPy, lets it say something where bounds are closer
        together than a tolerance for gradients.
        """
        zero = self.lower.dtype.type(0)
        held_parts: Array = held(parts(x), parts(g), zero, self.lower, self.upper)
        return held_parts

    def inward_part(self, x: Array, g: Array, i: int) -> float:
        """One of these parts; as all of them would be looked at one after the other, without an array."""
        place, part = parts(x).item(i), parts(g).item(i)
        is_held = (place <= self.lower.item(i) and part > 0) or (place >= self.upper.item(i) and part < 0)
        return 0.0 if is_held else part

    def room(self) -> Array:
        """How far bounds are apart, for each part of the variables."""
        with np.errstate(all="ignore"):
            return (self.upper - self.lower).astype(np.float64)

    def meet(self, x: Array, stepped: Array, own: Box) -> None:
        """Move a point inside that was stepped in other units, to a bound exactly where it met its own there."""
        for limit, side in ((own.lower, self.lower), (own.upper, self.upper)):
            np.copyto(parts(x), side, where=parts(stepped) == limit)
        self.move_inside(x)

    def in_units(self, sizes: Array) -> Box:
        """The bounds of variables in units of the sizes of their parts."""
        return type(self)(self.lower / sizes, self.upper / sizes, self._dtype)

    def repeated(self, times: int) -> Box:
        """The bounds of so many points, one after the other."""
        return type(self)(np.tile(self.lower, times), np.tile(self.upper, times), self._dtype)


class Ring(Box):
    """Bounds of the modulus of each variable: a disc where the lower one is not above 0."""

    @property
    def for_steps(self) -> tuple[Array, Array]:
        """What optimizers take as their bounds with ``complex_mode="modulus"``."""
        return self.lower, self.upper

    def move_inside(self, x: Array) -> None:
        """Move a point to the next one inside, in place."""
        with np.errstate(all="ignore"):
            moved = clipped(Pair(x.real, x.imag), self.lower, self.upper)
        x.real, x.imag = moved.x, moved.y

    def inward(self, x: Array, g: Array) -> Array:
        """The parts of the gradient at a point, without what would lead out radially of active bounds."""
        inward = np.empty_like(x)
        with np.errstate(all="ignore"):
            rest = held(Pair(x.real, x.imag), Pair(g.real, g.imag), self.lower.dtype.type(0), self.lower, self.upper)
        inward.real, inward.imag = rest.x, rest.y
        return parts(inward)

    def inward_part(self, x: Array, g: Array, i: int) -> float:
        """One of these parts."""
        one = slice(i // 2, i // 2 + 1)
        return float(Ring(self.lower[one], self.upper[one], self._dtype).inward(x[one], g[one])[i % 2])

    def room(self) -> Array:
        """The radius, for both parts of the variables."""
        return np.repeat(self.upper.astype(np.float64), 2)

    def meet(self, x: Array, stepped: Array, own: Box) -> None:
        """Move a point inside that was stepped in other units."""
        self.move_inside(x)

    def in_units(self, sizes: Array) -> Box:
        """The bounds of variables in units of their sizes, which both parts have in common."""
        return super().in_units(sizes[::2])


def bounds_of(bounds: Any, x: Array, is_of_moduli: bool) -> Box | None:
    """Bounds in the dtype of the variables, between those that were given.

    Parameters
    ----------
    bounds : None, a pair, pairs of numbers or None, or `scipy.optimize.Bounds`
        As `minimize` takes them; those of complex variables may be complex.
    x : ndarray, shape (n,)
        The variables.
    is_of_moduli : bool
        Whether bounds of complex variables are those of the modulus.
    """
    if bounds is None:
        return None
    low, high = _of_scipy(bounds, x) if hasattr(bounds, "lb") else _of_pairs(bounds, x)
    is_of_moduli = is_of_moduli and x.dtype.kind == "c"
    if is_of_moduli and "c" in (low.dtype.kind, high.dtype.kind):
        raise TypeError(
            "bounds must be real with complex_mode='modulus', where they are those of the modulus, got complex ones"
        )
    if x.dtype.kind == "c" and not is_of_moduli:
        low, high = (parts(side) if side.dtype.kind == "c" else np.repeat(side, 2) for side in (low, high))
    if wrong := np.flatnonzero(~(low <= high)).tolist():  # with NaN, too
        pair, variable = (low[wrong[0]].item(), high[wrong[0]].item()), wrong[0] // (low.size // x.size)
        what = "no NaN" if np.isnan(pair).any() else "no lower bound above the upper one"
        raise ValueError(f"bounds must have {what}, got {pair} for variable {variable}")
    if is_of_moduli and (wrong := np.flatnonzero(high < 0).tolist()):
        raise ValueError(
            f"bounds must have no upper bound below 0 with complex_mode='modulus', where they are those of the modulus, "
            f"got {high[wrong[0]].item()} for variable {wrong[0]}"
        )
    dtype = parts(x).dtype
    lower, upper = _rounded(low, dtype, np.inf), _rounded(high, dtype, -np.inf)
    between = lower <= upper
    if not np.all(between):  # no number of the dtype lies in the interval
        lower, upper = (np.where(between, side, low.astype(dtype)) for side in (lower, upper))
    return (Ring if is_of_moduli else Box)(lower, upper, x.dtype)


@np.errstate(over="ignore")
def _rounded(side: Array, dtype: np.dtype[Any], towards: float) -> Array:
    """Bounds as numbers of a dtype, in this direction where they are none."""
    near = side.astype(dtype)
    outside = near < side if towards > 0 else near > side
    return np.where(outside, np.nextafter(near, dtype.type(towards)), near)


def _kinds(x: Array) -> str:
    """The kinds of dtypes that bounds of such variables may have."""
    return "biufc" if x.dtype.kind == "c" else "biuf"


def _widened(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _of_scipy(bounds: Any, x: Array) -> tuple[Array, Array]:
    sides = []
    for name in ("lb", "ub"):
        side = np.asarray(getattr(bounds, name))
        if side.dtype.kind not in _kinds(x):
            raise TypeError(f"bounds.{name} must hold real numbers, got {side.dtype}")
        if side.size != 1 and side.size != x.size:
            raise ValueError(f"bounds.{name} must have an item for each of {x.size} variables, got {side.size}")
        sides.append(np.broadcast_to(_widened(side).reshape(-1), x.size).copy())
    return sides[0], sides[1]


def _of_pairs(bounds: Any, x: Array) -> tuple[Array, Array]:
    try:
        pairs = np.asarray(bounds if hasattr(bounds, "__array__") else list(bounds))
    except (TypeError, ValueError):  # no sequence, or items of several lengths
        pairs = np.array("")
    if pairs.shape == (2,):  # a lower and an upper bound for all
        pairs = pairs.reshape(1, 2)
    if np.ma.is_masked(bounds) or pairs.dtype.kind not in _kinds(x) + "O" or (pairs.size and pairs.shape[1:] != (2,)):
        hint = "; for two arrays take scipy.optimize.Bounds" if pairs.shape == (2, x.size) else ""
        raise TypeError(f"bounds must be pairs of numbers or None, or SciPy's Bounds, got {reprlib.repr(bounds)}{hint}")
    pairs = pairs.reshape(-1, 2)
    if len(pairs) not in (1, x.size):
        raise ValueError(f"bounds must be a pair for each of {x.size} variables, or one for all, got {len(pairs)} items")
    if pairs.dtype.kind == "O":
        infinite = itertools.cycle((-np.inf, np.inf))
        pairs = _numbers([none if each is None else each for each, none in zip(pairs.flat, infinite, strict=False)]).reshape(
            -1, 2
        )
    low, high = np.broadcast_to(_widened(pairs), (x.size, 2)).T.copy()
    return low, high


def _numbers(objects: list[Any]) -> Array:
    """Objects as numbers: those of Python in one go, else one after the other."""
    numbers = np.array(objects)
    return numbers if numbers.dtype.kind in "biufc" else np.array([real("bounds", each) for each in objects])
