"""Short pieces of memory, the rows of tables: copied, and fetched into the caches ahead of time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import int64, types
from numba.extending import intrinsic

from fastopt.engine.jitable import implementation_of
from fastopt.engine.loop import CACHE_LINE


def copy_bytes(to: Any, source: Any, size: Any) -> None:
    """Copy so many bytes."""
    ctypes.memmove(int(to), int(source), int(size))


@implementation_of(copy_bytes)
def _compiled_copy(to: Any, source: Any, size: Any) -> Callable[..., Any]:
    def copy(to: Any, source: Any, size: Any) -> None:
        # Rows are short: a call of the C library's function takes longer.
        whole = size // CACHE_LINE * CACHE_LINE
        for at in range(0, whole, CACHE_LINE):
            _copy_line(to + at, source + at)
        if size > whole:
            _memcpy(to + whole, source + whole, size - whole)

    return copy


@intrinsic
def _copy_line(typing_context: Any, to: Any, source: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.IntType(32), CACHE_LINE // 4).as_pointer()
        there, here = (builder.inttoptr(each, line) for each in arguments)
        builder.store(builder.load(here, align=1), there, align=1)
        return context.get_dummy_value()

    return types.void(int64, int64), generate


@intrinsic
def _memcpy(typing_context: Any, to: Any, source: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        there, here = (builder.inttoptr(each, byte) for each in arguments[:2])
        kinds = [byte, byte, ir.IntType(64)]
        function = builder.module.declare_intrinsic("llvm.memcpy", kinds)
        builder.call(function, [there, here, arguments[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(int64, int64, int64), generate


def prefetch(begin: Any, size: Any) -> None:
    """Fetch cache lines, without waiting for them."""


@implementation_of(prefetch)
def _compiled_prefetch(begin: Any, size: Any) -> Callable[..., Any]:
    def fetch(begin: Any, size: Any) -> None:
        for at in range(begin, begin + size, CACHE_LINE):
            _prefetch_line(at)
        _prefetch_line(begin + size - 1)  # of rows that begin within a line

    return fetch


# Arguments of LLVM's function: to be read, into the second cache, data. Few lines at a time can be on their way into the first,
# and while these are waited for, nothing else is done.
TO_SECOND_CACHE = (0, 2, 1)


@intrinsic
def _prefetch_line(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [builder.inttoptr(arguments[0], byte), *(ir.Constant(number, i) for i in TO_SECOND_CACHE)])
        return context.get_dummy_value()

    return types.void(int64), generate
