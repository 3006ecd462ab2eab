"""Memory by its address, in compiled code: records and vectors of a plan's tables, Python's objects, functions of spans.

An address is an int64, so tables of them are plain NumPy arrays, and a compiled call takes one number in place of all of its
arrays. Whoever hands over an address keeps the memory alive.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, int64, types
from numba.extending import intrinsic, register_jitable

# What a span is called with: operands, gradient, coefficients, begin, end, sums.
SPAN_SIGNATURE = types.void(int64, int64, int64, int64, int64, int64)


@intrinsic
def pointer(typing_context: Any, address: Any, kind: Any) -> Any:
    """The address as a pointer to numbers of a NumPy scalar type, or to records of a Numba type (compiled code only)."""
    result = types.CPointer(kind.instance_type)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(address, kind), generate


@register_jitable
def vector(address: Any, size: Any, kind: Any) -> Any:
    """The numbers or records at an address, as a vector (compiled code only)."""
    return carray(pointer(address, kind), (size,))


@register_jitable
def record(address: Any, kind: Any) -> Any:
    """The record at an address (compiled code only)."""
    return carray(pointer(address, kind), (1,))[0]


@intrinsic
def word(typing_context: Any, address: Any) -> Any:
    """The 64 bits at an address (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return int64(int64), generate


@intrinsic
def half_word(typing_context: Any, address: Any) -> Any:
    """The 32 bits at an address, with their sign (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))
        return builder.sext(value, ir.IntType(64))

    return int64(int64), generate


@intrinsic
def call(typing_context: Any, function: Any, operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> Any:
    """Call a span by its address (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(SPAN_SIGNATURE.args))
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(int64, *SPAN_SIGNATURE.args), generate
