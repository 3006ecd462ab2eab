"""Numbers of 8 bits: a code for each, and a power of two for each block of 32.

A code is what telephony makes of a sample (ITU-T G.711): of ``2 + |x| / scale``, which lies within some octaves, the exponent
and the first places of the mantissa, as they stand in a float32. Close to zero the steps between numbers are equal, further out
they grow with the numbers. So there is neither a division nor a table, a root nor a power; and as scales are powers of two,
numbers that stay what they are keep their codes until the largest of their block has come to another scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.jitable import jitable
from fastopt.engine.rounding import INFINITY, MAGNITUDE, bits_of, from_bits
from fastopt.engine.values import select

u32, i32 = np.uint32, np.int32

SIZE = 32  # numbers of a block

ZERO, TWO, TWO_BITS = np.float32(0), np.float32(2), u32(0x40000000)
MANTISSA, UPPER_HALF = u32(23), u32(16)  # places
# A scale is the upper half of the float32 that it is.
NO_SCALE, LEAST_SCALE, NAN_SCALE, OF_INVERSES = i32(0), i32(0x80), i32(0x7FC0), i32(0x7F00)
EXPONENT = i32(7)  # its place in that half


class Code(NamedTuple):
    """A kind of codes.

    Attributes
    ----------
    dtype : type
        int8, or uint8 where no number is negative.
    dropped, half : uint32
        How many places of a mantissa are no part of a code, and half of the last one that is.
    least : uint32
        The least code but zero, below the bits of 2.
    exponent, to_next : int32, uint32
        Of the largest number that there is a code for, and how far its mantissa is from that of the next power of two.
    """

    dtype: type
    dropped: Any
    half: Any
    least: Any
    exponent: Any
    to_next: Any


def _code(dtype: type, octaves: int, places: int) -> Code:
    """Codes for magnitudes of so many octaves, with so many places of the mantissa."""
    dropped = 23 - places
    largest = 2.0 ** (octaves + 1) * (1 - 2.0 ** -(places + 1)) - 2
    to_next = round((2 - largest / 2.0**octaves) * 2**23) - 1
    return Code(dtype, u32(dropped), u32(2 ** (dropped - 1)), u32((2**30 >> dropped) + 1), i32(octaves), u32(to_next))


# Of signed numbers 4 octaves with 5 places; of others, which range further since they are squares, 16 octaves with 4 places.
SIGNED, NONNEGATIVE = _code(np.int8, 4, 5), _code(np.uint8, 16, 4)
CODES = {np.dtype(code.dtype): code for code in (SIGNED, NONNEGATIVE)}


@jitable
def scale_of(largest: Any, exponent: Any, to_next: Any) -> Any:
    """The scale of a block, of the bits of its largest magnitude: the least with which that has a code."""
    scale = i32(i32(i32(u32(u32(largest + to_next) >> MANTISSA)) - exponent) << EXPONENT)
    scale = select(scale < LEAST_SCALE, LEAST_SCALE, scale)
    return np.uint16(select(largest >= INFINITY, NAN_SCALE, select(largest == u32(0), NO_SCALE, scale)))


@jitable
def factor_of(scale: Any) -> Any:
    """What numbers with a scale are multiplied with; NaN if one of them was not finite."""
    return from_bits(u32(u32(scale) << UPPER_HALF))


@jitable
def inverse_of(scale: Any) -> Any:
    """What they are multiplied with before."""
    return from_bits(u32(u32(OF_INVERSES - i32(scale)) << UPPER_HALF))


def code_of(x: Any, inverse: Any, noise: Any, code: Code) -> Any:
    """The codes of float32, given the inverse of their scale, and 32 random bits for each or None to round to nearest."""
    above_two = bits_of((from_bits(bits_of(x) & MAGNITUDE) * inverse + TWO).astype(np.float32))
    # The bits of two end above those of a code.
    codes = (above_two + (code.half if noise is None else noise >> u32(32 - code.dropped))) >> code.dropped
    if code.dtype is np.int8:
        return np.where(x < ZERO, -codes.view(np.int32), codes.view(np.int32)).astype(np.int8)
    # Never zero, unless all of the block is: who divides by a root of it must not divide by zero.
    return np.maximum(codes, code.least).astype(np.uint8)


def number_of(codes: Any, factor: Any) -> Any:
    """What codes stand for, of float32."""
    dropped = CODES[codes.dtype].dropped
    magnitudes = np.abs(codes.astype(np.int32)).astype(np.uint32)
    numbers = (from_bits((magnitudes << dropped) + TWO_BITS) - TWO) * factor
    return np.where(codes < 0, -numbers, numbers)


def encoded_in_blocks(x: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Codes of these numbers, rounded to nearest, and the scales of their blocks."""
    code = CODES[dtype]
    padded = np.zeros(-(-x.size // SIZE) * SIZE, np.float32)
    padded[: x.size] = x
    with np.errstate(all="ignore"):
        largest = np.max(bits_of(padded).reshape(-1, SIZE) & MAGNITUDE, axis=1, initial=0)
        scales = scale_of(largest, code.exponent, code.to_next)
        codes = code_of(padded, np.repeat(inverse_of(scales), SIZE), None, code)
    return codes[: x.size], scales


def decoded_from_blocks(codes: NDArray[Any], scales: NDArray[Any]) -> NDArray[Any]:
    """The numbers that codes with these scales stand for, of float32."""
    with np.errstate(all="ignore"):
        factors = np.repeat(factor_of(scales), SIZE)[: codes.size]
        return number_of(codes, factors)  # type: ignore[no-any-return]
