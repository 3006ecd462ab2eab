"""Points: where one starts, and copies of one that moves, each of which belongs to whoever asked for it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS

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
    """Makes copies of a point. The memory of a large one is taken again once nobody holds it, nor a view of it.

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

    def _free(self) -> NDArray[Any]:
        buffers = self._buffers
        for i in range(len(buffers)):
            if sys.getrefcount(buffers[i]) <= ALONE:
                return buffers[i]
        buffers.insert(0, np.empty_like(self._x))
        del buffers[BUFFERS:]
        return buffers[0]


def _alone() -> int:
    """What Python counts of an object that only a list holds, as it is asked for above."""
    items = [np.empty(0)]
    return sys.getrefcount(items[0])


ALONE = _alone()
