"""Load and store one element of whatever a kernel was given; many of them, where the index is an array.

The loop hands over arrays, scalars, and (nested) tuples of both; Numba picks the implementation by type while it
compiles. This is the only place that knows how a number lies in memory, so another storage format is one more case here:
neither the rules nor the loop would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from fastopt.engine.formats import ENCODE, encoded
from fastopt.engine.pairs import Pair, PairType, pair


def load(source: Any, i: Any, dtype: Any) -> Any:
    """Element ``i`` of an array, a scalar itself, or a tuple of either, as ``dtype``.

    Of an array of records it is a pair. A mask's booleans stay what they are.
    """
    if isinstance(source, tuple):
        return tuple(load(each, i, dtype) for each in source)
    if not isinstance(source, np.ndarray):
        return dtype(source)
    if source.ndim == 2:
        return Pair(dtype(source[i, 0]), dtype(source[i, 1]))
    return source[i] if source.dtype == bool else dtype(source[i])


def store(destination: Any, i: Any, values: Any, dtype: Any) -> Any:
    """Write ``values`` of ``dtype`` to element ``i`` of an array or a tuple of arrays, in its format."""
    if isinstance(destination, np.ndarray):
        for column, part in enumerate((values.x, values.y) if isinstance(values, Pair) else (values,)):
            destination[(i, column) if destination.ndim == 2 else i] = encoded(np.asarray(part), destination.dtype)
        return
    given = values if isinstance(values, tuple) else (values,)
    if len(given) != len(destination):
        raise _wrong_count(len(given), len(destination))
    for array, value in zip(destination, given, strict=True):
        number, expected = _form(value), "Pair({})" if array.ndim == 2 else "{}"
        if number != expected.format(np.dtype(dtype)):
            raise _wrong_type(number, expected.format(np.dtype(dtype)))
    for array, value in zip(destination, given, strict=True):
        store(array, i, value, dtype)


def _form(value: Any) -> str:
    return f"Pair({np.asarray(value.x).dtype})" if isinstance(value, Pair) else str(np.asarray(value).dtype)


def _wrong_type(returned: Any, given: Any) -> TypingError:
    return TypingError(f"the rule returned {returned} where it was given {given}")


def _wrong_count(returned: int, stored: int) -> TypingError:
    return TypingError(f"the rule returned {returned} values where theta and {stored - 1} states are stored")


@overload(load, strict=False)  # annotations of the implementations need not match
def _load(source: Any, i: Any, dtype: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        if len(source) == 0:
            return lambda source, i, dtype: ()
        return lambda source, i, dtype: (load(source[0], i, dtype), *load(source[1:], i, dtype))
    if isinstance(source, types.Array):
        if isinstance(source.dtype, types.Record):
            return lambda source, i, dtype: pair(dtype(source[i].x), dtype(source[i].y))
        if source.dtype == types.boolean:
            return lambda source, i, dtype: source[i]
        return lambda source, i, dtype: dtype(source[i])
    return lambda source, i, dtype: dtype(source)


@overload(store, strict=False)
def _store(destination: Any, i: Any, values: Any, dtype: Any) -> Callable[..., Any]:
    if isinstance(destination, types.Array):
        # An implicit cast would hide a rule that left the compute dtype, and a float32 kernel would run at half its speed.
        number = dtype.instance_type
        is_pair = isinstance(destination.dtype, types.Record)
        if values != (given := PairType(number) if is_pair else number):
            raise _wrong_type(values, given)
        dtype_there = as_dtype(destination.dtype.typeof("x") if is_pair else destination.dtype)
        encode = ENCODE.get(dtype_there, dtype_there.type)

        def store_number(destination: Any, i: Any, values: Any, dtype: Any) -> None:
            destination[i] = encode(values)

        def store_pair(destination: Any, i: Any, values: Any, dtype: Any) -> None:
            destination[i].x = encode(values.x)
            destination[i].y = encode(values.y)

        return store_pair if is_pair else store_number
    returned = len(values) if isinstance(values, types.BaseTuple) else 1
    if returned != len(destination):
        raise _wrong_count(returned, len(destination))
    if not isinstance(values, types.BaseTuple):
        return lambda destination, i, values, dtype: store(destination[0], i, values, dtype)
    if len(destination) == 1:
        return lambda destination, i, values, dtype: store(destination[0], i, values[0], dtype)

    def store_tuple(destination: Any, i: Any, values: Any, dtype: Any) -> None:
        store(destination[0], i, values[0], dtype)
        store(destination[1:], i, values[1:], dtype)

    return store_tuple
