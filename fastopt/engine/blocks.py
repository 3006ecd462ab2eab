"""Spans over arrays of which some are codes: what fits into the first cache is decoded, stepped, and encoded again.

The work is done by a span of the rule with float32 in the place of codes. Whatever the rule, what runs it is one function, and
its kernel is the one that others have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastopt.engine import sums
from fastopt.engine.addresses import call, record, vector, word
from fastopt.engine.codes import (
    NONNEGATIVE,
    SIGNED,
    SIZE,
    TWO_BITS,
    ZERO,
    Code,
    code_of,
    factor_of,
    inverse_of,
    number_of,
    scale_of,
)
from fastopt.engine.digest import digest
from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.loop import CACHE_LINE, elements
from fastopt.engine.noise import STRIDE, key_of, noise_from, product
from fastopt.engine.rounding import MAGNITUDE, bits_of
from fastopt.engine.tables import fields

u32 = np.uint32

LENGTH = 512  # elements that are decoded at once
GAP = 80  # numbers between the arrays of these, so that they don't lie at the same places of their pages

# What a span takes before the addresses of the one that does the work: that one, how many words it takes, how many of its
# arrays are codes, whether it changes them; and for noise the address of the count of steps, and the seed.
HEAD = fields("function", "words", "count", "is_updated", "step_count", "seed")
# Of each array of codes: its place among those words, where codes and scales lie, the numbers of an element; what noise is
# multiplied with, zero if it is rounded to nearest, and the place of the first number among all that there is noise for.
ARRAY = fields("place", "codes", "scales", "numbers", "is_signed", "salt", "first")
HEAD_BYTES, ARRAY_BYTES, FLOAT = HEAD.itemsize, ARRAY.itemsize, 4
head_type, array_type = numba.from_dtype(HEAD), numba.from_dtype(ARRAY)


# The compiler would unroll loops over a block before it looks for vectors in them. So what is done with one is written as
# vectors here. `fastopt.engine.codes` has the same for arrays, which is what runs without a compiler.
FLOATS, BITS, BYTES = (ir.VectorType(kind, SIZE) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(8)))


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of one number, which is known now or when it runs."""
    if not isinstance(value, ir.Value):
        return ir.Constant(kind, [value] * SIZE)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(BITS, [0] * SIZE))


def _block_at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _magnitudes(builder: Any, x: Any) -> Any:
    return builder.and_(builder.bitcast(builder.load(x, align=FLOAT), BITS), _splat(builder, int(MAGNITUDE), BITS))


@intrinsic
def _largest(typing_context: Any, x_at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, name = ir.FunctionType(ir.IntType(32), [BITS]), f"llvm.vector.reduce.umax.v{SIZE}i32"
        magnitudes = _magnitudes(builder, _block_at(builder, arguments[0], FLOATS))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [magnitudes])

    return types.uint32(types.int64), generate


def largest_magnitude(x_at: Any) -> Any:
    """The bits of the largest magnitude in the block at an address."""
    return np.max(bits_of(vector(x_at, SIZE, np.float32)) & MAGNITUDE)


@implementation_of(largest_magnitude)
def _compiled_largest(x_at: Any) -> Callable[..., Any]:
    return lambda x_at: _largest(x_at)


def _decoding(code: Code) -> Callable[..., None]:
    """``decode(codes_at, factor, x_at)`` writes the numbers of a block of codes."""
    is_signed = code.dtype is np.int8

    @intrinsic
    def compiled(typing_context: Any, codes_at: Any, factor: Any, x_at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            codes = builder.load(_block_at(builder, arguments[0], BYTES), align=1)
            is_negative = builder.icmp_signed("<", codes, _splat(builder, 0, BYTES))
            magnitudes = builder.select(is_negative, builder.neg(codes), codes) if is_signed else codes
            bits = builder.shl(builder.zext(magnitudes, BITS), _splat(builder, int(code.dropped), BITS))
            above_two = builder.bitcast(builder.add(bits, _splat(builder, int(TWO_BITS), BITS)), FLOATS)
            x = builder.fsub(above_two, _splat(builder, 2.0, FLOATS))
            x = builder.fmul(x, _splat(builder, arguments[1], FLOATS))
            x = builder.select(is_negative, builder.fneg(x), x) if is_signed else x
            builder.store(x, _block_at(builder, arguments[2], FLOATS), align=FLOAT)
            return context.get_dummy_value()

        return types.void(types.int64, types.float32, types.int64), generate

    def decode(codes_at: Any, factor: Any, x_at: Any) -> None:
        vector(x_at, SIZE, np.float32)[:] = number_of(vector(codes_at, SIZE, code.dtype), factor)

    implementation_of(decode)(lambda codes_at, factor, x_at: lambda codes_at, factor, x_at: compiled(codes_at, factor, x_at))
    return decode


def _encoding(code: Code, is_stochastic: bool) -> Callable[..., None]:
    """``encode(x_at, inverse, noise_at, salt, codes_at)`` writes the codes of a block of numbers."""
    is_signed = code.dtype is np.int8

    @intrinsic
    def compiled(typing_context: Any, x_at: Any, inverse: Any, noise_at: Any, salt: Any, codes_at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x_at, inverse, noise_at, salt, codes_at = arguments
            at = _block_at(builder, x_at, FLOATS)
            x = builder.fmul(builder.bitcast(_magnitudes(builder, at), FLOATS), _splat(builder, inverse, FLOATS))
            bits = builder.bitcast(builder.fadd(x, _splat(builder, 2.0, FLOATS)), BITS)
            if is_stochastic:
                noise = builder.mul(builder.load(_block_at(builder, noise_at, BITS), align=FLOAT), _splat(builder, salt, BITS))
                raised = builder.lshr(noise, _splat(builder, 32 - int(code.dropped), BITS))
            else:
                raised = _splat(builder, int(code.half), BITS)
            codes = builder.lshr(builder.add(bits, raised), _splat(builder, int(code.dropped), BITS))
            if is_signed:
                is_negative = builder.fcmp_ordered("<", builder.load(at, align=FLOAT), _splat(builder, 0.0, FLOATS))
                codes = builder.select(is_negative, builder.neg(codes), codes)
            else:
                least = _splat(builder, int(code.least), BITS)
                codes = builder.select(builder.icmp_unsigned("<", codes, least), least, codes)
            builder.store(builder.trunc(codes, BYTES), _block_at(builder, codes_at, BYTES), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.float32, types.int64, types.uint32, types.int64), generate

    def encode(x_at: Any, inverse: Any, noise_at: Any, salt: Any, codes_at: Any) -> None:
        noise = product(vector(noise_at, SIZE, np.uint32), salt) if is_stochastic else None
        vector(codes_at, SIZE, code.dtype)[:] = code_of(vector(x_at, SIZE, np.float32), inverse, noise, code)

    implementation_of(encode)(
        lambda x_at, inverse, noise_at, salt, codes_at: (
            lambda x_at, inverse, noise_at, salt, codes_at: compiled(x_at, inverse, noise_at, salt, codes_at)
        )
    )
    return encode


def _loops(code: Code) -> tuple[Callable[..., None], Callable[..., None]]:
    """What decodes some numbers of an array, and what encodes them."""
    decode_block, encode_nearest, encode_stochastic = _decoding(code), _encoding(code, False), _encoding(code, True)
    exponent, to_next = code.exponent, code.to_next

    @jitable
    def decode(array: Any, begin: Any, end: Any, x_at: Any, spare_at: Any) -> None:
        codes_at, scales = array.codes + begin, scales_at(array, begin, end)
        full = (end - begin) // SIZE
        for b in range(full):
            decode_block(codes_at + b * SIZE, factor_of(scales[b]), x_at + b * SIZE * FLOAT)
        if full < scales.size:
            copy_bytes(spare_at, codes_at + full * SIZE, (end - begin) % SIZE)
            decode_block(spare_at, factor_of(scales[full]), x_at + full * SIZE * FLOAT)

    @jitable
    def encode_all(array: Any, begin: Any, end: Any, x_at: Any, noise_at: Any, spare_at: Any, encode_block: Any) -> None:
        codes_at, scales, salt = array.codes + begin, scales_at(array, begin, end), u32(array.salt)
        full, block = (end - begin) // SIZE, SIZE * FLOAT
        for b in range(full):
            scales[b] = scale_of(largest_magnitude(x_at + b * block), exponent, to_next)
            encode_block(x_at + b * block, inverse_of(scales[b]), noise_at + b * block, salt, codes_at + b * SIZE)
        if full < scales.size:
            rest = (end - begin) % SIZE
            vector(x_at + full * block, SIZE, np.float32)[rest:] = ZERO
            scales[full] = scale_of(largest_magnitude(x_at + full * block), exponent, to_next)
            encode_block(x_at + full * block, inverse_of(scales[full]), noise_at + full * block, salt, spare_at)
            copy_bytes(codes_at + full * SIZE, spare_at, rest)

    @jitable
    def encode(array: Any, begin: Any, end: Any, x_at: Any, noise_at: Any, spare_at: Any) -> None:
        if array.salt:
            encode_all(array, begin, end, x_at, noise_at, spare_at, encode_stochastic)
        else:
            encode_all(array, begin, end, x_at, noise_at, spare_at, encode_nearest)

    return decode, encode


@jitable
def scales_at(array: Any, begin: Any, end: Any) -> Any:
    """The scales of the blocks that some numbers fill."""
    return vector(array.scales + begin // SIZE * 2, (end - begin + SIZE - 1) // SIZE, np.uint16)


@jitable
def copy_bytes(to: Any, source: Any, count: Any) -> None:
    """Copy less than a block of codes."""
    vector(to, count, np.uint8)[:] = vector(source, count, np.uint8)


decode_signed, encode_signed = _loops(SIGNED)
decode_nonnegative, encode_nonnegative = _loops(NONNEGATIVE)


@jitable
def draw(bits: Any, key: Any, first: Any) -> None:
    """Write random bits for numbers from one on."""
    start = product(u32(first), STRIDE)
    for i in elements(0, bits.size):
        bits[i] = noise_from(key, u32(product(u32(i), STRIDE) + start))


def span(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, total: Any) -> None:
    """Run a span over arrays of which some are codes, piece by piece."""
    head = record(operands, head_type)
    arrays = vector(operands + HEAD_BYTES, head.count, array_type)
    given = vector(operands + HEAD_BYTES + head.count * ARRAY_BYTES, head.words, int64)
    key = key_of(head.seed, word(head.step_count))
    length = LENGTH if head.is_updated else sums.BLOCK  # a sum over one block is one call
    words, row = np.empty(head.words, np.int64), (2 * length + GAP) * FLOAT
    memory = np.empty((head.count + 1) * row + SIZE + CACHE_LINE, np.uint8)
    words[:] = given
    # Vectors come to cache lines where they do in theta, or else one of the two lies across them.
    x_at = memory.ctypes.data + (given[0] - int64(memory.ctypes.data)) % CACHE_LINE
    noise_at, spare_at = x_at + head.count * row, x_at + (head.count + 1) * row
    for lo in range(begin, end, length):
        hi = min(end, lo + length)
        for a in range(head.count):
            array, at = arrays[a], x_at + a * row
            first, last = lo * array.numbers, hi * array.numbers
            words[array.place] = at - first * FLOAT
            if array.is_signed:
                decode_signed(array, first, last, at, spare_at)
            else:
                decode_nonnegative(array, first, last, at, spare_at)
        call(head.function, words.ctypes.data, g, coefficients, lo, hi, total)
        drawn = 0
        for a in range(head.count if head.is_updated else 0):
            array, at = arrays[a], x_at + a * row
            first, last = lo * array.numbers, hi * array.numbers
            if array.salt and drawn != array.numbers:
                drawn = array.numbers
                draw(vector(noise_at, last - first, np.uint32), key, array.first + first)
            if array.is_signed:
                encode_signed(array, first, last, at, noise_at, spare_at)
            else:
                encode_nonnegative(array, first, last, at, noise_at, spare_at)


class InBlocks:
    """The function that runs other spans over codes, as one that can be compiled: there is one for all of them."""

    rule = staticmethod(span)
    name = f"blocks_{digest(span)}"

    def span(self) -> Callable[..., None]:
        """The function, not compiled yet."""
        span.__name__ = span.__qualname__ = self.name
        return span
