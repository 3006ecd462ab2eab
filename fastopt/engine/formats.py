"""16-bit floating-point formats, in the form of integers with the same bits: int16 for float16, uint16 for bfloat16.

Numba computes with neither of them on the CPU, and NumPy doesn't know the second. Both are rounded to nearest, ties to even, by
integer operations that run on scalars in compiled code and on whole NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable
from numpy.typing import NDArray

from fastopt.engine.values import select

# Numba adds two uint32 in 64 bits; cast back each time, the compiler sees that 32 are enough.
u32, u16, i16 = np.uint32, np.uint16, np.int16

SIGN, MAGNITUDE, INFINITY = u32(0x80000000), u32(0x7FFFFFFF), u32(0x7F800000)
ONE, THIRTEEN, SIXTEEN = u32(1), u32(13), u32(16)
HALF_OF_16, QUIET_BIT = u32(0x7FFF), u32(0x0040)  # half of the last place of bfloat16, and what keeps NaN NaN
HALF_OF_13, REBIAS = u32(0x0FFF), u32(0x38000000)  # the same of float16, and the difference of the exponents
LEAST_NORMAL, OVERFLOW = u32(0x38800000), u32(0x47800000)  # of float16, as float32: 2^-14 and 2^16
MAGIC = np.float32(0.5)  # its last place is that of float16's subnormal numbers
FLOAT16_INFINITY, FLOAT16_NAN, FLOAT16_SIGN = u32(0x7C00), u32(0x7E00), u32(0x8000)


def _bits(x: Any) -> Any:
    """The bits of float32."""
    return x.view(np.uint32)


def _from_bits(x: Any) -> Any:
    """The float32 with some bits."""
    return x.view(np.float32)


def _reinterpreting(source: Any, result: Any) -> Any:
    @intrinsic
    def reinterpret(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(result))

        return result(source), generate

    return reinterpret


_bits_of_single = _reinterpreting(types.float32, types.uint32)
_single_of_bits = _reinterpreting(types.uint32, types.float32)


@overload(_bits, strict=False)
def _compiled_bits(x: Any) -> Callable[..., Any]:
    return lambda x: _bits_of_single(x)


@overload(_from_bits, strict=False)
def _compiled_from_bits(x: Any) -> Callable[..., Any]:
    return lambda x: _single_of_bits(x)


@register_jitable
def _single(x: Any) -> Any:
    """The bits of float32 that round to the same 16 bits as `x` does: rounded to odd, so that it can be rounded again."""
    single = np.float32(x)
    back = np.float64(single)
    truncated = u32(_bits(single) - u32(np.abs(back) > np.abs(x)))
    return u32(truncated | u32(back != x))


@register_jitable
def to_bfloat16(x: Any) -> Any:
    """Round float32 or float64 to bfloat16, as the uint16 with its bits."""
    bits = _single(x)
    rounded = u32(u32(bits + HALF_OF_16) + u32(u32(bits >> SIXTEEN) & ONE))
    is_nan = u32(bits & MAGNITUDE) > INFINITY
    return u16(select(is_nan, u32(u32(bits >> SIXTEEN) | QUIET_BIT), u32(rounded >> SIXTEEN)))


@register_jitable
def to_float16(x: Any) -> Any:
    """Round float32 or float64 to float16, as the int16 with its bits."""
    bits = _single(x)
    sign, magnitude = u32(u32(bits & SIGN) >> SIXTEEN), u32(bits & MAGNITUDE)
    rounded = u32(u32(magnitude + HALF_OF_13) + u32(u32(magnitude >> THIRTEEN) & ONE))
    normal = u32(u32(rounded - REBIAS) >> THIRTEEN)
    # The addition rounds, at the place where float16's subnormal numbers end.
    subnormal = u32(_bits(np.float32(_from_bits(magnitude) + MAGIC)) - _bits(MAGIC))
    finite = select(magnitude < LEAST_NORMAL, subnormal, normal)
    special = select(magnitude > INFINITY, FLOAT16_NAN, FLOAT16_INFINITY)
    return i16(u32(select(magnitude < OVERFLOW, finite, special)) | sign)


ENCODE: Mapping[np.dtype[Any], Callable[[Any], Any]] = {np.dtype(np.int16): to_float16, np.dtype(np.uint16): to_bfloat16}


def encoded(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of float32 or float64 as kernels write it to one of some dtype."""
    with np.errstate(all="ignore"):
        result: NDArray[Any] = ENCODE[dtype](array) if dtype in ENCODE else array.astype(dtype)
        return result


def storage_view(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as kernels take it: 16-bit numbers as integers."""
    if array.dtype == np.float16:
        return array.view(np.int16)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
