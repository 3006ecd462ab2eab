"""The loops: each element of every array is loaded once, updated in registers and stored once, or summed up.

A span is the loop of a rule over some elements. Whoever runs spans, in whatever pieces, gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, int64, types, uint64
from numba.extending import overload, register_jitable

from fastopt.engine.addresses import matrix, vector, word
from fastopt.engine.pairs import parts_in_memory
from fastopt.engine.storage import load, store
from fastopt.engine.sums import LANES, add_lanes, add_products

# NumPy scalar types of arrays, one for each.
Kinds = tuple[type, ...]

CACHE_LINE = 64  # bytes
ITEM = 8  # bytes of an address, and of a coefficient


# Among the kinds of what a rule reads: not an array, but the next number in the row of coefficients.
NUMBER = np.int64


def elements(begin: Any, end: Any) -> Any:
    """What a loop goes over: one index after the other, or, without a compiler, all of them at once."""
    return (np.arange(begin, end, dtype=np.uint64),)


@overload(elements, strict=False)
def _elements(begin: Any, end: Any) -> Callable[..., Any]:
    # Unsigned bounds: with signed ones Numba adds a test for negative indices, and the loop stays scalar.
    return lambda begin, end: range(uint64(begin), uint64(end))


@register_jitable
def span(rule: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
    """Update the elements ``[lo, hi)`` of ``arrays``, which are ``(theta, *states)``."""
    # In two parts, so that the second begins on a cache line: vectors that lie across two take longer.
    # In a caller's own loop theta may be a view with any stride; then it makes no difference where the second part begins.
    stride = arrays[0].strides[0]
    head = min(hi, lo + -(int64(arrays[0].ctypes.data) + lo * stride) % CACHE_LINE // max(1, stride))
    for begin, end in ((lo, head), (head, hi)):
        for i in elements(begin, end):
            old = load(arrays, i, dtype)
            new = rule(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype)))
            store(arrays, i, new, dtype)


@register_jitable
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


@register_jitable
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


@overload(operands_at, strict=False)
def _operands_at(addresses: Any, row: Any, size: Any, kinds: Any) -> Callable[..., Any]:
    if len(kinds) == 0:
        return lambda addresses, row, size, kinds: ()
    if kinds[0].instance_type == types.int64:
        return lambda addresses, row, size, kinds: (
            vector(row, 1, float64)[0],
            *operands_at(addresses, row + ITEM, size, kinds[1:]),
        )
    return lambda addresses, row, size, kinds: (
        array_at(word(addresses), size, kinds[0]),
        *operands_at(addresses + ITEM, row, size, kinds[1:]),
    )


def array_at(address: Any, size: Any, kind: Any) -> Any:
    """An array of a NumPy scalar type; of a complex one, pairs of its parts."""
    if not issubclass(kind, np.complexfloating):
        return vector(address, size, kind)
    return matrix(address, size, 2, kind(0).real.dtype.type)


@overload(array_at, strict=False)
def _array_at(address: Any, size: Any, kind: Any) -> Callable[..., Any]:
    if not isinstance(kind.instance_type, types.Complex):
        return lambda address, size, kind: vector(address, size, kind)
    parts = parts_in_memory(kind.instance_type.underlying_float)
    return lambda address, size, kind: vector(address, size, parts)


def updating_span(rule: Callable[..., Any], dtype: type, updated: Kinds, gradient: type, read: Kinds) -> Callable[..., None]:
    """Span that steps elements.

    Parameters
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)`` gives the new theta and states of one element.
    dtype : type
        The NumPy scalar type to compute in.
    updated : tuple of type
        The NumPy scalar types of theta and of what is updated besides; a complex one is one of pairs.
    gradient : type
        That of the gradient.
    read : tuple of type
        Of the rate and the coefficients: `NUMBER`, or the type of an array.

    Returns
    -------
    callable
        ``span(operands, g, coefficients, begin, end, sums)``, not compiled yet: the address of the addresses of all arrays but
        the gradient, that of the gradient, and that of the numbers; which elements; and nothing.
    """
    arrays_read = ITEM * len(updated)

    def kernel(operands: Any, g: Any, coefficients: Any, begin: Any, end: Any, sums: Any) -> None:
        arrays = operands_at(operands, coefficients, end, updated)
        others = operands_at(operands + arrays_read, coefficients, end, read)
        span(rule, dtype, arrays, array_at(g, end, gradient), others[0], others[1:], begin, end)

    return kernel


def measuring_span(
    measure: Callable[..., Any], dtype: type, updated: Kinds, gradient: type, read: Kinds, products: int
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
