"""Points: where one starts, and copies of one that moves, each of which belongs to whoever asked for it."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS, parts
from fastopt.engine.copies import LARGE_BYTES, is_finite
from fastopt.minimization.answers import product

SMALL = 4096  # elements, of which a new array is made in no time
BUFFERS = 2  # a loop holds the last point while it asks for the next one


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


class Points:
    """Makes copies of a point that moves, and one of where it was before.

    The memory of a large copy is taken again once nobody holds it, nor a view of it.

    Parameters
    ----------
    x : ndarray
        The point.
    """

    def __init__(self, x: NDArray[Any]) -> None:
        self._x = x
        self._buffers: list[NDArray[Any]] = []
        self._is_small = x.size <= SMALL

    def copy(self) -> NDArray[Any]:
        """The point as it is now, in an array that nobody else will write to."""
        if self._is_small:
            return self._x.copy()
        free = self._free()
        np.copyto(free, self._x)
        return free

    def are_finite(self, g: NDArray[Any]) -> bool:
        """Whether the point that was copied last, and a gradient there, are finite; False where they are too large to tell."""
        return math.isfinite(abs(product(self._x, g)))

    def before(self, spare: NDArray[Any]) -> NDArray[Any]:
        """The point that was copied last, and is about to move, in an array to keep; one that is no longer needed is given."""
        np.copyto(spare, self._x)
        return spare

    def _free(self) -> NDArray[Any]:
        """Memory that nobody holds, as a new array, since whoever has one may change its shape, dtype and flags."""
        buffers = self._buffers
        for i in range(len(buffers)):
            if sys.getrefcount(buffers[i]) <= ALONE:
                return buffers[i].view()
        buffers.insert(0, np.empty_like(self._x))
        del buffers[BUFFERS:]
        return buffers[0].view()


class LargePoints(Points):
    """Points that are larger than the caches, and move by steps only.

    As they are where they were copied until they are about to move, both copies are made in one pass, which finds out whether
    all is finite.
    """

    def __init__(self, x: NDArray[Any]) -> None:
        super().__init__(x)
        self._kept = np.empty_like(x)
        self._is_finite = True

    def copy(self) -> NDArray[Any]:
        """As of other points."""
        free = self._free()
        self._is_finite = is_finite(parts(self._x), copy_to=(free, self._kept))
        return free

    def are_finite(self, g: NDArray[Any]) -> bool:
        """As of other points, but the gradient alone is read."""
        if g.dtype == self._x.dtype and g.flags.c_contiguous:
            return self._is_finite and is_finite(parts(g))
        return super().are_finite(g)

    def before(self, spare: NDArray[Any]) -> NDArray[Any]:
        """As of other points, by exchanging arrays."""
        self._kept, spare = spare, self._kept
        return spare


def points_of(x: NDArray[Any], moves_by_steps: bool) -> Points:
    """What makes copies of a point, which may move by steps only."""
    return LargePoints(x) if moves_by_steps and x.nbytes >= LARGE_BYTES else Points(x)


def _alone() -> int:
    """What Python counts of an object that only a list holds, as it is asked for above."""
    items = [np.empty(0)]
    return sys.getrefcount(items[0])


ALONE = _alone()
