"""The streaming limit: loops that only move the bytes that a step has to move.

Every array that a pass updates is loaded, gets one addition and is stored; every other array is loaded and added up. No
optimizer with this state can be faster than memory and caches allow these loops to be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba import prange, types
from numba.extending import overload
from numpy.typing import NDArray

from bench.measure import interleaved
from bench.traffic import Pass
from fastopt.arrays.layout import ALIGNMENT, PAGE, aligned_zeros


def total(arrays: Any, i: Any) -> Any:
    """Sum of element ``i`` of all arrays of a tuple (compiled code only)."""
    raise NotImplementedError


@overload(total, strict=False)
def _total(arrays: Any, i: Any) -> Callable[..., Any]:
    if len(arrays) == 1:
        return lambda arrays, i: arrays[0][i]
    return lambda arrays, i: arrays[0][i] + total(arrays[1:], i)


def add(arrays: Any, i: Any, x: Any) -> Any:
    """Add ``x`` to element ``i`` of all arrays of a tuple (compiled code only)."""
    raise NotImplementedError


@overload(add, strict=False)
def _add(arrays: Any, i: Any, x: Any) -> Callable[..., Any]:
    def add_last(arrays: Any, i: Any, x: Any) -> None:
        arrays[-1][i] += x

    def add_each(arrays: Any, i: Any, x: Any) -> None:
        add(arrays[:-1], i, x)
        arrays[-1][i] += x

    return add_last if len(arrays) == 1 else add_each


def _update(updated, read):
    for i in prange(read[0].size):
        add(updated, i, total(read, i))


def _touch(updated, read):
    one = updated[0].dtype.type(1)
    for i in prange(updated[0].size):
        add(updated, i, one)


def _sum(updated, read):
    result = read[0].dtype.type(0)
    for i in prange(read[0].size):
        result += total(read, i)
    return result  # else nothing would be loaded


@functools.cache
def jitted(counts: Pass, dtype: np.dtype[Any], parallel: bool) -> Any:
    """The dispatcher of the loop over a tuple of arrays to update and a tuple of arrays to read."""
    number = numba.from_dtype(dtype)
    arrays = [types.UniTuple(types.Array(number, 1, "C"), count) for count in counts]
    function, result = (_update if counts.read else _touch, types.void) if counts.updated else (_sum, number)
    # Not cached: the on-disk key would not tell the parallel variant from the serial one. In a sum the order of additions
    # must be free, or each would wait for the one before.
    return numba.njit([result(*arrays)], parallel=parallel, error_model="numpy", fastmath=True)(function)


def compiled(counts: Pass, dtype: np.dtype[Any], parallel: bool) -> Callable[..., Any]:
    """The loop's entry point, as fastopt calls its kernels: the dispatcher's checks would cost more than a small step.

    A loop that only reads returns the sum of all elements.
    """
    (variant,) = jitted(counts, dtype, parallel).overloads.values()
    return variant.entry_point


def streaming_step(passes: Sequence[Pass], size: int, dtype: np.dtype[Any]) -> Callable[[], object]:
    """All passes of a step, each by the serial or by the parallel loop, whichever is faster at this size.

    Parameters
    ----------
    passes : sequence of Pass
        The last one touches all arrays, those before it some of them.
    size : int
        Elements of each array.
    dtype : dtype
        Of each array.
    """
    *_, last = passes
    count, lines = sum(last), PAGE // ALIGNMENT
    # Apart in their pages, as fastopt's states are: at the same place, streams get in each other's way.
    arrays = [aligned_zeros(size, dtype, page_offset=i * lines // count * ALIGNMENT) for i in range(count)]
    for array in arrays[: max(1, last.read)]:
        array.fill(1)  # before something is written to them, all pages of zeros are one and the same
    # The last one first, for it writes to the others.
    loops = [_fastest(counts, arrays) for counts in reversed(passes)][::-1]
    if len(loops) == 1:
        return loops[0]

    def step() -> None:
        for loop in loops:
            loop()

    return step


def _fastest(counts: Pass, arrays: Sequence[NDArray[Any]]) -> Callable[[], object]:
    read, updated = tuple(arrays[: counts.read]), tuple(arrays[counts.read : sum(counts)])
    loops = {
        parallel: functools.partial(compiled(counts, arrays[0].dtype, parallel), updated, read) for parallel in (False, True)
    }
    seconds = interleaved(loops, rounds=5, block_seconds=0.005)
    return loops[min(loops, key=lambda parallel: min(seconds[parallel]))]
