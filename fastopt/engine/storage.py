"""Load and store one element of whatever a kernel was given.

The loop hands over arrays, scalars, and (nested) tuples of both; Numba picks the implementation by type while it compiles.
Arrays whose numbers Numba can't compute with come with their format (`engine.formats`); neither the rules nor the loop know it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types, uint32
from numba.core.errors import TypingError
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from fastopt.engine.formats import FormattedType, array_of
from fastopt.engine.noise import noise, product, salt_of
from fastopt.engine.pairs import PairType, pair


def load(source: Any, i: Any, dtype: Any) -> Any:
    """Element ``i`` of an array, a scalar itself, or a tuple of either, as ``dtype`` (compiled code only).

    Of an array of two dimensions it is a pair. A mask's booleans stay what they are.
    """
    raise NotImplementedError("load exists in compiled code only")


def store(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> Any:
    """Write ``values`` of ``dtype`` to element ``i`` of an array or a tuple of arrays, in its format (compiled code only).

    Random ``bits`` are for what is rounded stochastically; else they are None.
    """
    raise NotImplementedError("store exists in compiled code only")


@overload(load, strict=False)  # annotations of the implementations need not match
def _load(source: Any, i: Any, dtype: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        if len(source) == 0:
            return lambda source, i, dtype: ()
        return lambda source, i, dtype: (load(source[0], i, dtype), *load(source[1:], i, dtype))
    if isinstance(source, FormattedType):
        decode = source.form.decode
        if source.form.is_paired:
            return lambda source, i, dtype: pair(dtype(decode(source.array[i, 0])), dtype(decode(source.array[i, 1])))
        return lambda source, i, dtype: dtype(decode(source.array[i]))
    if isinstance(source, types.Array):
        if source.ndim == 2:
            return lambda source, i, dtype: pair(dtype(source[i, 0]), dtype(source[i, 1]))
        if source.dtype == types.boolean:
            return lambda source, i, dtype: source[i]
        return lambda source, i, dtype: dtype(source[i])
    return lambda source, i, dtype: dtype(source)


@overload(store, strict=False)
def _store(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> Callable[..., Any]:
    if isinstance(destination, (types.Array, FormattedType)):
        # An implicit cast would hide a rule that left the compute dtype, and a float32 kernel would run at half its speed.
        of_other_part, number = salt_of(0), dtype.instance_type
        array: Any = destination.array if isinstance(destination, FormattedType) else destination
        if values != (given := number if array.ndim == 1 else PairType(number)):
            raise TypingError(f"the rule returned {values} where it was given {given}")

        def store_number(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
            array_of(destination)[i] = _written(destination, values, bits)

        def store_pair(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
            array_of(destination)[i, 0] = _written(destination, values.x, bits)
            array_of(destination)[i, 1] = _written(destination, values.y, _salted(bits, of_other_part))

        return store_number if array.ndim == 1 else store_pair
    salt = salt_of(len(destination))
    returned = len(values) if isinstance(values, types.BaseTuple) else 1
    if returned != len(destination):
        raise TypingError(f"the rule returned {returned} values where theta and {len(destination) - 1} states are stored")
    if not isinstance(values, types.BaseTuple):
        return lambda destination, i, values, dtype, bits: store(destination[0], i, values, dtype, _salted(bits, salt))
    if len(destination) == 1:
        return lambda destination, i, values, dtype, bits: store(destination[0], i, values[0], dtype, _salted(bits, salt))

    def store_tuple(destination: Any, i: Any, values: Any, dtype: Any, bits: Any) -> None:
        store(destination[0], i, values[0], dtype, _salted(bits, salt))
        store(destination[1:], i, values[1:], dtype, bits)

    return store_tuple


def _written(destination: Any, value: Any, bits: Any) -> Any:
    """What is written to an array for a value (compiled code only)."""
    raise NotImplementedError("_written exists in compiled code only")


@overload(_written, strict=False)
def _written_in_place(destination: Any, value: Any, bits: Any) -> Callable[..., Any]:
    if not isinstance(destination, FormattedType):
        cast = as_dtype(destination.dtype).type
        return lambda destination, value, bits: cast(value)
    encode = destination.form.encode
    if destination.form.is_stochastic:
        return lambda destination, value, bits: encode(value, bits)
    return lambda destination, value, bits: encode(value)


def drawn(source: Any, i: Any) -> Any:
    """Random bits for element ``i``, if there is a source of noise (compiled code only)."""
    raise NotImplementedError("drawn exists in compiled code only")


@overload(drawn, strict=False)
def _drawn(source: Any, i: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        return lambda source, i: noise(source[0], uint32(source[1] + uint32(i)))
    return lambda source, i: None


def _salted(bits: Any, salt: Any) -> Any:
    """Random bits of their own, if there are any (compiled code only)."""
    raise NotImplementedError("_salted exists in compiled code only")


@overload(_salted, strict=False)
def _salted_bits(bits: Any, salt: Any) -> Callable[..., Any]:
    return (lambda bits, salt: product(bits, salt)) if bits == types.uint32 else (lambda bits, salt: None)
