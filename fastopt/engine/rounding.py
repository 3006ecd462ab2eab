"""Numbers of 16 bits, as integers with the same bits: read, and rounded to nearest or stochastically.

Numba computes with neither float16 nor bfloat16 on the CPU, and NumPy doesn't know the second. All functions here are integer
operations that run on scalars in compiled code and on whole NumPy arrays; where the processor has instructions for float16,
compiled code has these. Nearest is nearest with ties to even. Stochastic rounding rounds a number up as often as it is close to
the one above: noise is added to the bits that are lost, and then they are cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.values import select

# Numba adds two uint32 in 64 bits; cast back each time, the compiler sees that 32 are enough.
u32, u16, i32 = np.uint32, np.uint16, np.int32

SIGN, MAGNITUDE, INFINITY = u32(0x80000000), u32(0x7FFFFFFF), u32(0x7F800000)
ONE, THIRTEEN, SIXTEEN = u32(1), u32(13), u32(16)
HALF_OF_16, QUIET_BIT = u32(0x7FFF), u32(0x00400000)  # half of the last place of bfloat16, and what keeps NaN NaN
HALF_OF_13, REBIAS = u32(0x0FFF), u32(0x38000000)  # the same of float16, and the difference of the exponents
LEAST_NORMAL, OVERFLOW = u32(0x38800000), u32(0x47800000)  # of float16, as float32: 2^-14 and 2^16
MAGIC = np.float32(0.5)  # its last place is that of float16's subnormal numbers
FLOAT16_INFINITY, FLOAT16_NAN, FLOAT16_SIGN = u32(0x7C00), u32(0x7E00), u32(0x8000)
# Of float16, shifted to the place that float32 has it at: all but the sign, the least normal number, infinity.
FLOAT16_MAGNITUDE, FLOAT16_LEAST, FLOAT16_ABOVE = u32(0x0FFFE000), u32(0x00800000), u32(0x0F800000)
NINETEEN = u32(19)
PLACES, ALL_PLACES = np.float32(2.0**24), np.float32(2.0**10)  # of float16's subnormal numbers in 1; how many of them there are
CHANCES = np.float32(2.0**31)
EIGHT, HALF_OF_8, HIGH_24 = u32(8), u32(0x7F), u32(0xFFFFFF00)
LOW, HIGH, HALF_PLACE, NAN = u32(0xFFFF), u32(0xFFFF0000), u32(0x8000), u32(0x7FC00000)


def bits_of(x: Any) -> Any:
    """The bits of float32."""
    return x.view(np.uint32)


def from_bits(x: Any) -> Any:
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


@implementation_of(bits_of)
def _compiled_bits(x: Any) -> Callable[..., Any]:
    return lambda x: _bits_of_single(x)


@implementation_of(from_bits)
def _compiled_from_bits(x: Any) -> Callable[..., Any]:
    return lambda x: _single_of_bits(x)


@jitable
def _rounded_to_odd(x: Any) -> Any:
    """The bits of float32 that round to the same 16 bits as a float64 does: rounded to odd, so that it can be rounded again."""
    single = np.float32(x)
    back = np.float64(single)
    truncated = u32(bits_of(single) - u32(np.abs(back) > np.abs(x)))
    return u32(truncated | u32(back != x))


def single_bits(x: Any) -> Any:
    """The bits of a float32, or of one that stands for a float64."""
    return bits_of(x) if x.dtype == np.float32 else _rounded_to_odd(x)


@implementation_of(single_bits)
def _single_bits(x: Any) -> Callable[..., Any]:
    return (lambda x: bits_of(x)) if x == types.float32 else lambda x: _rounded_to_odd(x)


@jitable
def from_bfloat16(x: Any) -> Any:
    """The float32 that a bfloat16 is, given as the uint16 with its bits."""
    return from_bits(u32(u32(x) << SIXTEEN))


@jitable
def _cut_to_bfloat16(bits: Any, raised: Any) -> Any:
    """The upper half of bits that were raised to be rounded; of NaN, that of a NaN."""
    x = from_bits(bits)
    return u16(u32(select(x != x, u32(bits | QUIET_BIT), raised) >> SIXTEEN))


@jitable
def to_bfloat16(x: Any) -> Any:
    """Round float32 or float64 to bfloat16, as the uint16 with its bits."""
    bits = single_bits(x)
    return _cut_to_bfloat16(bits, u32(u32(bits + HALF_OF_16) + u32(u32(bits >> SIXTEEN) & ONE)))


@jitable
def to_bfloat16_stochastic(x: Any, noise: Any) -> Any:
    """The same with 32 random bits."""
    bits = single_bits(x)
    # What is infinite has no lost bits, and what is close to the largest number becomes infinite as often as it should.
    return _cut_to_bfloat16(bits, u32(bits + u32(noise >> SIXTEEN)))


@jitable
def from_float16(x: Any) -> Any:
    """The float32 that a float16 is, given as the uint16 with its bits."""
    return _widened(x)


def _widened(x: Any) -> Any:
    bits = u32(x)
    magnitude = u32(u32(bits << THIRTEEN) & FLOAT16_MAGNITUDE)
    normal = u32(magnitude + REBIAS)
    subnormal = bits_of(np.float32(from_bits(u32(magnitude + LEAST_NORMAL)) - from_bits(LEAST_NORMAL)))
    finite = select(magnitude < FLOAT16_LEAST, subnormal, normal)
    number = select(magnitude < FLOAT16_ABOVE, finite, u32(normal + REBIAS))
    return from_bits(u32(number | u32(u32(bits & FLOAT16_SIGN) << SIXTEEN)))


@jitable
def _float16_of(bits: Any, finite: Any, limit: Any) -> Any:
    """Join the sign of a float32 with a magnitude; infinity from a limit on, and NaN for NaN."""
    sign, magnitude = u32(u32(bits & SIGN) >> SIXTEEN), u32(bits & MAGNITUDE)
    special = select(magnitude > INFINITY, FLOAT16_NAN, FLOAT16_INFINITY)
    return u16(u32(select(magnitude < limit, finite, special)) | sign)


@jitable
def to_float16(x: Any) -> Any:
    """Round float32 or float64 to float16, as the uint16 with its bits."""
    return _narrowed(single_bits(x))


def _narrowed(bits: Any) -> Any:
    magnitude = u32(bits & MAGNITUDE)
    rounded = u32(u32(magnitude + HALF_OF_13) + u32(u32(magnitude >> THIRTEEN) & ONE))
    normal = u32(u32(rounded - REBIAS) >> THIRTEEN)
    # The addition rounds, at the place where float16's subnormal numbers end.
    subnormal = u32(bits_of(np.float32(from_bits(magnitude) + MAGIC)) - bits_of(MAGIC))
    return _float16_of(bits, select(magnitude < LEAST_NORMAL, subnormal, normal), OVERFLOW)


@intrinsic
def _widened_by_processor(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _narrowed_by_processor(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = builder.fptrunc(builder.bitcast(arguments[0], ir.FloatType()), ir.HalfType())
        return builder.bitcast(half, ir.IntType(16))

    return types.uint16(types.uint32), generate


def _has_float16() -> bool:
    """Whether Numba makes code for a processor with these instructions: without them LLVM calls functions that aren't there."""
    return "+f16c" in cpu_target.target_context.codegen()._tm_features


@implementation_of(_widened)
def _compiled_widened(x: Any) -> Callable[..., Any]:
    return (lambda x: _widened_by_processor(x)) if _has_float16() else _widened


@implementation_of(_narrowed)
def _compiled_narrowed(bits: Any) -> Callable[..., Any]:
    return (lambda bits: _narrowed_by_processor(bits)) if _has_float16() else _narrowed


@jitable
def to_float16_stochastic(x: Any, noise: Any) -> Any:
    """The same with 32 random bits."""
    bits = single_bits(x)
    magnitude = u32(bits & MAGNITUDE)
    normal = u32(u32(u32(magnitude - REBIAS) + u32(noise >> NINETEEN)) >> THIRTEEN)
    # Of subnormal numbers more bits are lost: how many places of them there are is a sum of a whole number and a chance.
    places = np.float32(from_bits(magnitude) * PLACES)
    whole = np.floor(np.minimum(places, ALL_PLACES))
    chance = i32(np.float32(np.float32(np.minimum(places, ALL_PLACES) - whole) * CHANCES))
    subnormal = u32(u32(i32(whole)) + u32(i32(u32(noise >> ONE)) < chance))
    return _float16_of(bits, select(magnitude < LEAST_NORMAL, subnormal, normal), OVERFLOW)


@jitable
def joined(high: Any, low: Any) -> Any:
    """The float32 whose nearest bfloat16 is given, together with the lower half of its bits as a signed number."""
    return from_bits(u32(bits_of(high) + u32(i32(low))))


@jitable
def upper_half(x: Any) -> Any:
    """The bfloat16 that is nearest to a float32, as a float32: ties go away from zero, so that `lower_half` has 16 bits."""
    bits = bits_of(x)
    return from_bits(select(u32(bits & MAGNITUDE) > INFINITY, NAN, u32(u32(bits + HALF_PLACE) & HIGH)))


@jitable
def lower_half(x: Any) -> Any:
    """What `upper_half` leaves of the bits of a float32, in [-32768, 32767], as a float32."""
    bits = bits_of(x)
    signed = i32(i32(u32(u32(bits + HALF_PLACE) & LOW)) - i32(HALF_PLACE))
    return np.float32(select(u32(bits & MAGNITUDE) > INFINITY, i32(0), i32(signed)))


@jitable
def to_24_bits(x: Any) -> Any:
    """Round a float32 to the nearest whose last 8 bits are 0, so that those of its `lower_half` are, too."""
    bits = bits_of(x)
    rounded = u32(u32(u32(bits + HALF_OF_8) + u32(u32(bits >> EIGHT) & ONE)) & HIGH_24)
    return from_bits(select(u32(bits & MAGNITUDE) > INFINITY, NAN, rounded))
