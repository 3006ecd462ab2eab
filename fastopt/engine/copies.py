"""Copies of a vector that is larger than the caches, to two arrays at once, and whether all of it is finite.

Such a pass takes as long as memory does. So it reads the vector once for all that is asked, and writes around the caches: a
line that is stored in a cache must be fetched first, and the numbers would push out others and be gone before they are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint32, uint64
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastopt.engine.addresses import vector
from fastopt.engine.compile import compiled_function
from fastopt.engine.external import restore_thread, save_thread
from fastopt.engine.interpreted import IS_INTERPRETED, interpreted
from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.loop import elements

# An array of fewer bytes may still be in a cache when the copy is read.
LARGE_BYTES = 32 * 1024 * 1024

BLOCK_BYTES = 16 * 1024  # which is looked at and then written, from the first cache
UNIT_BYTES = 16  # that are written around the caches at once, to multiples of it
UNIT = ir.VectorType(ir.IntType(64), 2)

# Of a number that isn't finite all bits of the exponent are set.
EXPONENT_32, EXPONENT_64 = np.uint32(0x7F80_0000), np.uint64(0x7FF0_0000_0000_0000)

SIGNATURE = int64(int64, int64, int64, int64, int64)


def is_finite(x: NDArray[Any], copy_to: Sequence[NDArray[Any]] = ()) -> bool:
    """Tell whether all of a vector of float32 or float64 is finite, and copy it to up to two arrays like it on the way.

    It runs on one thread, since that can write as fast as memory takes it, and doesn't wait for others on a busy machine.

    Parameters
    ----------
    x : ndarray
    copy_to : sequence of ndarray
        Contiguous as `x`, and of its size and dtype.
    """
    first, second = [*(array.ctypes.data for array in copy_to), 0, 0][:2]
    return _function()(x.ctypes.data, x.nbytes, x.dtype.itemsize, first, second) == 1


@functools.cache
def _function() -> Callable[..., int]:
    """The compiled function, or what stands in its place."""
    if IS_INTERPRETED:
        return interpreted(_copy, lambda *arguments: None)
    return compiled_function(_copy, SIGNATURE, "copy").overloads[SIGNATURE.args].entry_point  # type: ignore[no-any-return]


def _copy(source: Any, size: Any, item: Any, first: Any, second: Any) -> Any:
    """Copy bytes from an address to none, one or two others, and give 1 if the numbers there are finite, else 0."""
    state = save_thread()
    found = 1
    for at in range(0, size, BLOCK_BYTES):
        count = min(BLOCK_BYTES, size - at)
        if not _is_finite(source + at, count, item):
            found = 0
        if first:
            _copy_around(source + at, first + at, count)
        if second:
            _copy_around(source + at, second + at, count)
    restore_thread(state)
    return found


@jitable
def _is_finite(source: Any, size: Any, item: Any) -> Any:
    if item == 4:
        return _largest(vector(source, size // 4, uint32), EXPONENT_32) < EXPONENT_32
    return _largest(vector(source, size // 8, uint64), EXPONENT_64) < EXPONENT_64


def _largest(bits: Any, mask: Any) -> Any:
    """The largest of numbers of which only the bits of a mask count."""
    return (bits & mask).max()


@implementation_of(_largest)
def _compiled_largest(bits: Any, mask: Any) -> Callable[..., Any]:
    def largest(bits: Any, mask: Any) -> Any:
        found = bits[0] & mask
        for i in elements(0, bits.size):
            found = max(found, bits[i] & mask)
        return found

    return largest


@jitable
def _copy_bytes(source: Any, to: Any, size: Any) -> None:
    vector(to, size, np.uint8)[:] = vector(source, size, np.uint8)


def _copy_around(source: Any, to: Any, size: Any) -> None:
    """Copy bytes around the caches; without a compiler through them."""
    _copy_bytes(source, to, size)


@implementation_of(_copy_around)
def _compiled_copy_around(source: Any, to: Any, size: Any) -> Callable[..., Any]:
    def copy_around(source: Any, to: Any, size: Any) -> None:
        head = min(size, -to % UNIT_BYTES)
        body = (size - head) // UNIT_BYTES * UNIT_BYTES
        _copy_bytes(source, to, head)
        for at in range(head, head + body, UNIT_BYTES):
            _copy_unit(source + at, to + at)
        _copy_bytes(source + head + body, to + head + body, size - head - body)

    return copy_around


@intrinsic
def _copy_unit(typing_context: Any, source: Any, to: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, to = (builder.inttoptr(address, UNIT.as_pointer()) for address in arguments)
        stored = builder.store(builder.load(source, align=1), to, align=UNIT_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(int64, int64), generate
