"""Copies of a vector that is larger than the caches, to two arrays at once, and whether all of it is finite.

Such a pass takes as long as memory does. So it reads the vector once for all that is asked, and writes around the caches: a
line that is stored in a cache must be fetched first, and the numbers would push out others and be gone before they are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, prange, types, uint32, uint64
from numba.extending import intrinsic, overload, register_jitable
from numpy.typing import NDArray

from fastopt.engine.addresses import vector
from fastopt.engine.compile import compiled_function
from fastopt.engine.external import get_num_threads, restore_thread, save_thread, set_num_threads
from fastopt.engine.interpreted import IS_INTERPRETED, interpreted
from fastopt.engine.launch import NO_TRIAL_FROM_BYTES, Launch
from fastopt.engine.loop import elements

# An array of fewer bytes may still be in a cache when the copy is read.
LARGE_BYTES = 32 * 1024 * 1024

BLOCK_BYTES = 16 * 1024  # which is looked at and then written, from the first cache
UNIT_BYTES = 16  # that are written around the caches at once, to multiples of it
UNIT = ir.VectorType(ir.IntType(64), 2)

# Of a number that isn't finite all bits of the exponent are set.
EXPONENT_32, EXPONENT_64 = np.uint32(0x7F80_0000), np.uint64(0x7FF0_0000_0000_0000)

SIGNATURE = int64(int64, int64, int64, int64, int64, int64)


class Copies:
    """Copies large vectors of float32 and float64, on several threads.

    Parameters
    ----------
    threads : int or None
        On how many at most.
    """

    def __init__(self, threads: int | None) -> None:
        self._launch = Launch(NO_TRIAL_FROM_BYTES, threads, _function)

    def __call__(self, x: NDArray[Any], first: NDArray[Any] | None = None, second: NDArray[Any] | None = None) -> bool:
        """Copy `x` to none, one or two arrays of its size and dtype, all contiguous, and tell whether all of it is finite."""
        places = (0 if array is None else array.ctypes.data for array in (first, second))
        return self._launch(x.ctypes.data, x.nbytes, x.dtype.itemsize, *places) == 0


@functools.cache
def _function(parallel: bool) -> Callable[..., int]:
    """``copy(threads, source, size, item, first, second)``, which gives 0 if all is finite."""
    if IS_INTERPRETED:
        return interpreted(_copying(parallel), lambda *arguments: None)
    name = "copy_parallel" if parallel else "copy_serial"
    compiled = compiled_function(_copying(parallel), SIGNATURE, name, parallel)
    return compiled.overloads[SIGNATURE.args].entry_point  # type: ignore[no-any-return]


def _copying(parallel: bool) -> Callable[..., int]:
    """The function, not compiled yet."""

    def copy(threads: Any, source: Any, size: Any, item: Any, first: Any, second: Any) -> Any:
        found = np.zeros(1, np.int64)
        state = save_thread()
        if parallel:
            callers = get_num_threads()
            set_num_threads(threads)
            for part in prange(threads):
                _copy_share(source, size, item, first, second, int64(part), threads, found)
            set_num_threads(callers)
        else:
            _copy_share(source, size, item, first, second, 0, 1, found)
        restore_thread(state)
        return found[0]

    return copy


@register_jitable
def _copy_share(source: Any, size: Any, item: Any, first: Any, second: Any, part: Any, parts: Any, found: Any) -> None:
    blocks = (size + BLOCK_BYTES - 1) // BLOCK_BYTES
    for block in range(blocks * part // parts, blocks * (part + 1) // parts):
        at = block * BLOCK_BYTES
        count = min(BLOCK_BYTES, size - at)
        if not _is_finite(source + at, count, item):
            found[0] = 1
        if first:
            _copy_around(source + at, first + at, count)
        if second:
            _copy_around(source + at, second + at, count)


@register_jitable
def _is_finite(source: Any, size: Any, item: Any) -> Any:
    if item == 4:
        return _largest(vector(source, size // 4, uint32), EXPONENT_32) < EXPONENT_32
    return _largest(vector(source, size // 8, uint64), EXPONENT_64) < EXPONENT_64


def _largest(bits: Any, mask: Any) -> Any:
    """The largest of numbers of which only the bits of a mask count."""
    return (bits & mask).max()


@overload(_largest, strict=False)
def _compiled_largest(bits: Any, mask: Any) -> Callable[..., Any]:
    def largest(bits: Any, mask: Any) -> Any:
        found = bits[0] & mask
        for i in elements(0, bits.size):
            found = max(found, bits[i] & mask)
        return found

    return largest


def _copy_around(source: Any, to: Any, size: Any) -> None:
    """Copy bytes around the caches."""
    vector(to, size, np.uint8)[:] = vector(source, size, np.uint8)


@overload(_copy_around, strict=False)
def _compiled_copy_around(source: Any, to: Any, size: Any) -> Callable[..., Any]:
    def copy_around(source: Any, to: Any, size: Any) -> None:
        head = min(size, -to % UNIT_BYTES)
        body = (size - head) // UNIT_BYTES * UNIT_BYTES
        _copy_bytes(source, to, head)
        for at in range(head, head + body, UNIT_BYTES):
            _copy_unit(source + at, to + at)
        _copy_bytes(source + head + body, to + head + body, size - head - body)

    return copy_around


@register_jitable
def _copy_bytes(source: Any, to: Any, size: Any) -> None:
    vector(to, size, np.uint8)[:] = vector(source, size, np.uint8)


@intrinsic
def _copy_unit(typing_context: Any, source: Any, to: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, to = (builder.inttoptr(address, UNIT.as_pointer()) for address in arguments)
        stored = builder.store(builder.load(source, align=1), to, align=UNIT_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(int64, int64), generate
