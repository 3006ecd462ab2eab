"""The loops: each element of every array is loaded once, updated in registers and stored once, or summed up.

A span is the loop of a rule over some elements. Whoever runs spans, in whatever pieces, gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, int64, types, uint32, uint64

from fastopt.engine.addresses import matrix, vector, word
from fastopt.engine.formats import Format, FormatType, array_of, formatted
from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.noise import key_of, salt_of
from fastopt.engine.pairs import parts_in_memory
from fastopt.engine.storage import drawn, load, salted, store
from fastopt.engine.sums import LANES, add_lanes, add_products, sum_in_lanes

# What arrays hold: for each a NumPy scalar type, or a format.
Kind = type | Format
Kinds = tuple[Kind, ...]

CACHE_LINE = 64  # bytes
ITEM = 8  # bytes of an address, and of a coefficient


# Among the kinds of what a rule reads: not an array, but the next number in the row of coefficients.
NUMBER = np.int64

# What makes the noise of a row's states another one than that of its first element.
OF_ROWS = salt_of(0)

# How many words stochastic rounding needs: the address of the count of steps, the seed, the place of the first element.
NOISE = 3


def elements(begin: Any, end: Any) -> Any:
    """What a loop goes over: one index after the other, or, without a compiler, all of them at once."""
    return (np.arange(begin, end, dtype=np.uint64),)


@implementation_of(elements)
def _elements(begin: Any, end: Any) -> Callable[..., Any]:
    # Unsigned bounds: with signed ones Numba adds a test for negative indices, and the loop stays scalar.
    return lambda begin, end: range(uint64(begin), uint64(end))


@jitable
def span(rule: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any, source: Any = None) -> None:
    """Update the elements ``[lo, hi)`` of ``arrays``, which are ``(theta, *states)``.

    What is rounded stochastically takes noise from a source: a key, and the place of element 0 among all that have noise.
    """
    # In two parts, so that the second begins on a cache line: vectors that lie across two take longer.
    # In a caller's own loop theta may be a view with any stride; then it makes no difference where the second part begins.
    theta = array_of(arrays[0])
    stride = theta.strides[0]
    head = min(hi, lo + -(int64(theta.ctypes.data) + lo * stride) % CACHE_LINE // max(1, stride))
    for begin, end in ((lo, head), (head, hi)):
        for i in elements(begin, end):
            old = load(arrays, i, dtype)
            new = rule(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype)))
            store(arrays, i, new, dtype, drawn(source, i))


@jitable
def _sum(measure: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any, sums: Any) -> None:
    sums[...] = 0.0
    full = lo + (hi - lo) // LANES * LANES
    for first in range(lo, full, LANES):
        # One sum after the other would wait for the one before; as many lanes as there are here fill vector registers.
        for lane in elements(0, LANES):
            _measure(measure, dtype, arrays, g, lr, coefficients, uint64(first) + lane, sums, lane)
    for lane in elements(0, hi - full):
        _measure(measure, dtype, arrays, g, lr, coefficients, uint64(full) + lane, sums, lane)
    add_lanes(sums)


@jitable
def _measure(measure: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, i: Any, sums: Any, lane: Any) -> None:
    old = load(arrays, i, dtype)
    add_products(sums, lane, measure(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype))))


def operands_at(addresses: Any, row: Any, size: Any, kinds: Any) -> Any:
    """Arrays of these kinds at an address each, and numbers from a row, in the order of the kinds.

    Both addresses and numbers are pointers to the first of those that are left.
    """
    if not kinds:
        return ()
    if kinds[0] is NUMBER:
        return (vector(row, 1, float64)[0], *operands_at(addresses, row + ITEM, size, kinds[1:]))
    return (array_at(word(addresses), size, kinds[0]), *operands_at(addresses + ITEM, row, size, kinds[1:]))


@implementation_of(operands_at)
def _operands_at(addresses: Any, row: Any, size: Any, kinds: Any) -> Callable[..., Any]:
    if len(kinds) == 0:
        return lambda addresses, row, size, kinds: ()
    if getattr(kinds[0], "instance_type", None) == types.int64:
        return lambda addresses, row, size, kinds: (
            vector(row, 1, float64)[0],
            *operands_at(addresses, row + ITEM, size, kinds[1:]),
        )
    return lambda addresses, row, size, kinds: (
        array_at(word(addresses), size, kinds[0]),
        *operands_at(addresses + ITEM, row, size, kinds[1:]),
    )


def array_at(address: Any, size: Any, kind: Any) -> Any:
    """An array of a NumPy scalar type, of a complex one pairs of its parts; or one with its format."""
    if isinstance(kind, Format):
        bits = matrix(address, size, 2, kind.bits) if kind.is_paired else vector(address, size, kind.bits)
        return formatted(bits, kind)
    if not issubclass(kind, np.complexfloating):
        return vector(address, size, kind)
    return matrix(address, size, 2, kind(0).real.dtype.type)


@implementation_of(array_at)
def _array_at(address: Any, size: Any, kind: Any) -> Callable[..., Any]:
    if isinstance(kind, FormatType):
        bits = parts_in_memory(np.dtype(kind.form.bits)) if kind.form.is_paired else kind.form.bits
        return lambda address, size, kind: formatted(vector(address, size, bits), kind)
    if not isinstance(kind.instance_type, types.Complex):
        return lambda address, size, kind: vector(address, size, kind)
    parts = parts_in_memory(kind.instance_type.underlying_float)
    return lambda address, size, kind: vector(address, size, parts)


def updating_span(rule: Callable[..., Any], dtype: type, updated: Kinds, gradient: Kind, read: Kinds) -> Callable[..., None]:
    """Span that steps elements.

    Parameters
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)`` gives the new theta and states of one element.
    dtype : type
        The NumPy scalar type to compute in.
    updated : tuple of type or Format
        What theta holds, and what is updated besides: NumPy scalar types, of which a complex one is one of pairs, or formats.
    gradient : type or Format
        What the gradient holds.
    read : tuple of type
        Of the rate and the coefficients: `NUMBER`, or the type of an array.

    Returns
    -------
    callable
        ``span(operands, g, coefficients, begin, end, sums)``, not compiled yet: the address of the addresses of all arrays but
        the gradient, that of the gradient, and that of the numbers; which elements; and nothing. With stochastic rounding the
        words of `NOISE` follow the addresses of the arrays.
    """
    arrays_read = ITEM * len(updated)
    noise_begin = ITEM * (len(updated) + sum(kind is not NUMBER for kind in read))

    def kernel(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> None:
        arrays = operands_at(operands, coefficients, end, updated)
        others = operands_at(operands + arrays_read, coefficients, end, read)
        span(rule, dtype, arrays, array_at(g, end, gradient), others[0], others[1:], begin, end)

    def kernel_stochastic(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> None:
        arrays = operands_at(operands, coefficients, end, updated)
        others = operands_at(operands + arrays_read, coefficients, end, read)
        of_noise = vector(operands + noise_begin, NOISE, int64)  # the address of the count of steps, seed, first element
        source = key_of(of_noise[1], word(of_noise[0])), uint32(of_noise[2])
        span(rule, dtype, arrays, array_at(g, end, gradient), others[0], others[1:], begin, end, source)

    return kernel_stochastic if any(isinstance(kind, Format) and kind.is_stochastic for kind in updated) else kernel


# Terms of a row that are added up in lanes of the rule's own dtype, before their sum is added to a double.
PART = 32 * LANES


@jitable
def _stepped(rule: Any, dtype: Any, arrays: Any, of_row: Any, g: Any, lr: Any, coefficients: Any, i: Any) -> Any:
    """What a rule gives for an element, of whose row there are some numbers after the states."""
    old = load(arrays, i, dtype) + of_row
    return rule(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype)))


def row_span(
    rule: Callable[..., Any], dtype: type, updated: Kinds, gradient: Kind, read: Kinds, of_rows: int
) -> Callable[..., None]:
    """Span that steps elements, where the last states have one number for each row.

    The rule takes a mean over the row right after the states, and gives last what it is the mean of. With a mean of anything
    it gives that, and so it is called twice. What it gives as a row's state must follow from the row's numbers alone.

    Parameters
    ----------
    rule, dtype, updated, gradient, read
        As `updating_span` takes them.
    of_rows : int
        How many states have one number for each row.

    Returns
    -------
    callable
        As `updating_span` gives it. The length of a row follows the words of `NOISE`, which are always there; and the rows are
        those that begin with one of the elements.
    """
    count = len(updated) - of_rows
    of_arrays, of_states = updated[:count], updated[count:]
    states_begin, read_begin = ITEM * count, ITEM * len(updated)
    words_begin = read_begin + ITEM * sum(kind is not NUMBER for kind in read)
    is_stochastic = any(isinstance(kind, Format) and kind.is_stochastic for kind in updated)

    def kernel(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, unused: Any) -> None:
        words = vector(operands + words_begin, NOISE + 1, int64)
        source = (key_of(words[1], word(words[0])), uint32(words[2])) if is_stochastic else None
        width = words[NOISE]
        first, last = -(-begin // width), -(-end // width)
        size = last * width
        arrays = operands_at(operands, coefficients, size, of_arrays)
        states = operands_at(operands + states_begin, coefficients, last, of_states)
        others = operands_at(operands + read_begin, coefficients, size, read)
        given = array_at(g, size, gradient)
        terms: Any = np.empty(PART + LANES, dtype)
        for r in range(first, last):
            lo, hi = r * width, (r + 1) * width
            of_row = load(states, r, dtype)
            total = 0.0
            for part in range(lo, hi, PART):
                length = min(PART, hi - part)
                for i in elements(0, LANES):
                    terms[uint64(length) + i] = dtype(0.0)  # for lanes without a last term
                for i in elements(part, part + length):
                    new = _stepped(rule, dtype, arrays, (*of_row, dtype(0.0)), given, others[0], others[1:], i)
                    terms[i - uint64(part)] = new[-1]
                total += float64(sum_in_lanes(terms, -(-length // LANES)))
            of_row_and_mean = (*of_row, dtype(total / width))
            new = _stepped(rule, dtype, arrays, of_row_and_mean, given, others[0], others[1:], uint64(lo))
            store(states, r, new[count:-1], dtype, salted(drawn(source, uint64(lo)), OF_ROWS))
            for i in elements(lo, hi):
                new = _stepped(rule, dtype, arrays, of_row_and_mean, given, others[0], others[1:], i)
                store(arrays, i, new[:count], dtype, drawn(source, i))

    return kernel


def measuring_span(
    measure: Callable[..., Any], dtype: type, updated: Kinds, gradient: Kind, read: Kinds, products: int
) -> Callable[..., None]:
    """Span that only reads: the measure gives pairs of factors, whose products are added up at ``sums``.

    The memory there holds `LANES` doubles for each product; the sum of a product is left in the first of them.
    """
    arrays_read = ITEM * len(updated)

    def kernel(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> None:
        arrays = operands_at(operands, coefficients, end, updated)
        others = operands_at(operands + arrays_read, coefficients, end, read)
        lanes = matrix(sums, products, LANES, float64)
        _sum(measure, dtype, arrays, array_at(g, end, gradient), others[0], others[1:], begin, end, lanes)

    return kernel
