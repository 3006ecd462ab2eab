"""Load and store one element of whatever a kernel was given; many of them, where the index is an array.

The loop hands over arrays, scalars, and (nested) tuples of both; Numba picks the implementation by type while it compiles.
Arrays whose numbers Numba can't compute with come with their format (`engine.formats`); neither the rules nor the loop know it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types, uint32
from numba.core.errors import TypingError
from numba.np.numpy_support import as_dtype

from fastopt.engine.formats import Formatted, FormattedType, array_of
from fastopt.engine.jitable import implementation_of
from fastopt.engine.noise import noise, product, salt_of
from fastopt.engine.pairs import Pair, PairType, pair


def load(source: Any, i: Any, dtype: Any) -> Any:
    """Element ``i`` of an array, a scalar itself, or a tuple of either, as ``dtype``.

    Of an array of records it is a pair. A mask's booleans stay what they are.
    """
    if isinstance(source, Formatted):
        decode, array = source.form.decode, source.array
        if array.ndim == 2:
            return Pair(_copy(decode(array[i, 0]), dtype), _copy(decode(array[i, 1]), dtype))
        return _copy(decode(array[i]), dtype)
    if isinstance(source, tuple):
        return tuple(load(each, i, dtype) for each in source)
    if not isinstance(source, np.ndarray):
        return dtype(source)
    if source.ndim == 2:
        return Pair(_copy(source[i, 0], dtype), _copy(source[i, 1], dtype))
    return source[i] if source.dtype == bool else _copy(source[i], dtype)


def _copy(numbers: Any, dtype: Any) -> Any:
    """Numbers of some dtype; an array of one stays an array, which older versions of NumPy make a number of, with a warning."""
    return np.array(numbers, dtype)[()]


def store(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> Any:
    """Write ``values`` of ``dtype`` to element ``i`` of an array or a tuple of arrays, in its format.

    Random ``bits`` are for what is rounded stochastically; else they are None.
    """
    if isinstance(destination, (np.ndarray, Formatted)):
        array = array_of(destination)
        if array.ndim == 2:
            array[i, 0] = _written(destination, values.x, bits)
            array[i, 1] = _written(destination, values.y, salted(bits, salt_of(0)))
        else:
            array[i] = _written(destination, values, bits)
        return
    given = values if isinstance(values, tuple) else (values,)
    if len(given) != len(destination):
        raise _wrong_count(len(given), len(destination))
    for each, value in zip(destination, given, strict=True):
        number, expected = _form(value), "Pair({})" if array_of(each).ndim == 2 else "{}"
        if number != expected.format(np.dtype(dtype)):
            raise _wrong_type(number, expected.format(np.dtype(dtype)))
    for left, each, value in zip(range(len(destination), 0, -1), destination, given, strict=True):
        store(each, i, value, dtype, salted(bits, salt_of(left)))


def _form(value: Any) -> str:
    return f"Pair({np.asarray(value.x).dtype})" if isinstance(value, Pair) else str(np.asarray(value).dtype)


def _wrong_type(returned: Any, given: Any) -> TypingError:
    return TypingError(f"the rule returned {returned} where it was given {given}")


def _wrong_count(returned: int, stored: int) -> TypingError:
    return TypingError(f"the rule returned {returned} values where theta and {stored - 1} states are stored")


def _written(destination: Any, value: Any, bits: Any) -> Any:
    """What is written to an array for a value."""
    number = np.asarray(value)
    with np.errstate(all="ignore"):
        if not isinstance(destination, Formatted):
            return number.astype(destination.dtype)
        encode = destination.form.encode
        return encode(number, bits) if destination.form.is_stochastic else encode(number)


def drawn(source: Any, i: Any) -> Any:
    """Random bits for element ``i``, if there is a source of noise."""
    return None if source is None else noise(source[0], np.uint32(source[1] + np.uint32(i)))


def salted(bits: Any, salt: Any) -> Any:
    """Random bits of their own, if there are any."""
    return None if bits is None else product(bits, salt)


@implementation_of(load)
def _load(source: Any, i: Any, dtype: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        if len(source) == 0:
            return lambda source, i, dtype: ()
        return lambda source, i, dtype: (load(source[0], i, dtype), *load(source[1:], i, dtype))
    if isinstance(source, FormattedType):
        decode = source.form.decode
        if source.form.is_paired:
            return lambda source, i, dtype: pair(dtype(decode(source.array[i].x)), dtype(decode(source.array[i].y)))
        return lambda source, i, dtype: dtype(decode(source.array[i]))
    if isinstance(source, types.Array):
        if isinstance(source.dtype, types.Record):
            return lambda source, i, dtype: pair(dtype(source[i].x), dtype(source[i].y))
        if source.dtype == types.boolean:
            return lambda source, i, dtype: source[i]
        return lambda source, i, dtype: dtype(source[i])
    return lambda source, i, dtype: dtype(source)


@implementation_of(store)
def _store(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> Callable[..., Any]:
    if isinstance(destination, (types.Array, FormattedType)):
        # An implicit cast would hide a rule that left the compute dtype, and a float32 kernel would run at half its speed.
        of_other_part, number = salt_of(0), dtype.instance_type
        array: Any = destination.array if isinstance(destination, FormattedType) else destination
        is_pair = isinstance(array.dtype, types.Record)
        if values != (given := PairType(number) if is_pair else number):
            raise _wrong_type(values, given)

        def store_number(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
            array_of(destination)[i] = _written(destination, values, bits)

        def store_pair(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
            array_of(destination)[i].x = _written(destination, values.x, bits)
            array_of(destination)[i].y = _written(destination, values.y, salted(bits, of_other_part))

        return store_pair if is_pair else store_number
    salt = salt_of(len(destination))
    returned = len(values) if isinstance(values, types.BaseTuple) else 1
    if returned != len(destination):
        raise _wrong_count(returned, len(destination))
    if not isinstance(values, types.BaseTuple):
        return lambda destination, i, values, dtype, bits: store(destination[0], i, values, dtype, salted(bits, salt))
    if len(destination) == 1:
        return lambda destination, i, values, dtype, bits: store(destination[0], i, values[0], dtype, salted(bits, salt))

    def store_tuple(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
        store(destination[0], i, values[0], dtype, salted(bits, salt))
        store(destination[1:], i, values[1:], dtype, bits)

    return store_tuple


@implementation_of(_written)
def _written_in_place(destination: Any, value: Any, bits: Any) -> Callable[..., Any]:
    if not isinstance(destination, FormattedType):
        is_pair = isinstance(destination.dtype, types.Record)
        cast = as_dtype(destination.dtype.typeof("x") if is_pair else destination.dtype).type
        return lambda destination, value, bits: cast(value)
    encode = destination.form.encode
    if destination.form.is_stochastic:
        return lambda destination, value, bits: encode(value, bits)
    return lambda destination, value, bits: encode(value)


@implementation_of(drawn)
def _drawn(source: Any, i: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        return lambda source, i: noise(source[0], uint32(source[1] + uint32(i)))
    return lambda source, i: None


@implementation_of(salted)
def _salted_bits(bits: Any, salt: Any) -> Callable[..., Any]:
    return (lambda bits, salt: product(bits, salt)) if bits == types.uint32 else (lambda bits, salt: None)
