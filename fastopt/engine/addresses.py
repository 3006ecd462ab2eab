"""Memory by its address: records and vectors of a plan's tables, Python's objects, functions of spans.

An address is an int64, so tables of them are plain NumPy arrays, and a compiled call takes one number in place of all of its
arrays. Whoever hands over an address keeps the memory alive. What runs without a compiler finds the same memory by ``ctypes``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, int32, int64, types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from fastopt.engine.jitable import implementation_of, jitable

# What a span is called with: operands, gradient, coefficients, begin, end, sums.
SPAN_SIGNATURE = types.void(int64, int64, int64, int64, int64, int64)


@intrinsic
def pointer(typing_context: Any, address: Any, kind: Any) -> Any:
    """The address as a pointer to numbers of a NumPy scalar type, or to records of a Numba type (compiled code only)."""
    result = types.CPointer(kind.instance_type)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(address, kind), generate


class Records:
    """Records of integers, whose fields are attributes, as they are in compiled code."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, i: int) -> Record:
        return Record(self._array[i])


class Record:
    """One of them."""

    _fields: Any

    def __init__(self, fields: Any) -> None:
        object.__setattr__(self, "_fields", fields)

    def __getattr__(self, name: str) -> int:
        return int(self._fields[name])

    def __setattr__(self, name: str, value: int) -> None:
        self._fields[name] = value


def vector(address: Any, size: Any, kind: Any) -> Any:
    """The numbers or records at an address, as a vector."""
    dtype = as_dtype(kind) if isinstance(kind, types.Type) else np.dtype(kind)
    memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(int(address))
    array: Any = np.ndarray((size,), dtype, memory)
    return array if dtype.names is None else Records(array)


@implementation_of(vector)
def _vector(address: Any, size: Any, kind: Any) -> Callable[..., Any]:
    return lambda address, size, kind: carray(pointer(address, kind), (size,))


@jitable
def matrix(address: Any, rows: Any, columns: Any, kind: Any) -> Any:
    """The numbers at an address, as a matrix in C order."""
    return vector(address, rows * columns, kind).reshape(rows, columns)


@jitable
def record(address: Any, kind: Any) -> Any:
    """The record at an address."""
    return vector(address, 1, kind)[0]


@jitable
def word(address: Any) -> Any:
    """The 64 bits at an address."""
    return vector(address, 1, int64)[0]


@jitable
def half_word(address: Any) -> Any:
    """The 32 bits at an address, with their sign."""
    return int64(vector(address, 1, int32)[0])


def call(function: Any, operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> None:
    """Call a span by its address; that of a Python object, if there is no compiler."""
    ctypes.cast(function, ctypes.py_object).value(operands, g, coefficients, begin, end, sums)


@implementation_of(call)
def _call(function: Any, operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> Callable[..., Any]:
    return lambda function, operands, g, coefficients, begin, end, sums: _call_at(
        function, operands, g, coefficients, begin, end, sums
    )


@intrinsic
def _call_at(typing_context: Any, function: Any, operands: Any, g: Any, row: Any, begin: Any, end: Any, sums: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(SPAN_SIGNATURE.args))
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(int64, *SPAN_SIGNATURE.args), generate
