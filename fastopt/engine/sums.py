"""Sums over the elements of tensors, with the same bits for every number of threads.

Each tensor is cut into blocks of one length. The products of a block are added up in lanes, element ``i`` in lane ``i %
LANES``, in double precision: so nothing overflows, and the order of additions is always the same. Then the lanes are added up,
and the blocks of a tensor, from the first to the last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float64, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.pairs import Pair, PairType, pair

LANES = 32
BLOCK = 8192  # elements


def add_products(sums: Any, lane: Any, pairs: Any) -> Any:
    """Add the product of each pair to ``sums[:, lane]``, in double precision."""
    for product, (a, b) in enumerate(pairs):
        sums[product, lane] += _doubled(a) * _doubled(b)


@implementation_of(add_products)
def _add_products(sums: Any, lane: Any, pairs: Any) -> Callable[..., Any]:
    last = len(pairs) - 1
    if last < 0:
        return lambda sums, lane, pairs: None

    def add(sums: Any, lane: Any, pairs: Any) -> None:
        a, b = pairs[last]
        sums[last, lane] += _doubled(a) * _doubled(b)
        add_products(sums, lane, pairs[:last])

    return add


@jitable
def add_lanes(sums: Any) -> None:
    """Leave the sum of each product's lanes in the first one, added up in the order of NumPy's sum of so many numbers."""
    for product in range(sums.shape[0]):
        lanes = sums[product]
        for i in range(8):
            lanes[i] = ((lanes[i] + lanes[i + 8]) + lanes[i + 16]) + lanes[i + 24]
        halves = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]), (lanes[4] + lanes[5]) + (lanes[6] + lanes[7])
        lanes[0] = halves[0] + halves[1]


def _doubled(x: Any) -> Any:
    """A number or a pair in double precision."""
    return Pair(_doubled(x.x), _doubled(x.y)) if isinstance(x, Pair) else np.asarray(x, np.float64)


@implementation_of(_doubled)
def _doubled_number(x: Any) -> Callable[..., Any]:
    if isinstance(x, PairType):
        return lambda x: pair(float64(x.x), float64(x.y))
    return lambda x: float64(x)


def sum_in_lanes(terms: Any, rounds: Any) -> Any:
    """The sum of the first terms of a vector, so many rounds of lanes, in their own dtype."""
    lanes = np.zeros((1, LANES), terms.dtype)
    for own in terms[: rounds * LANES].reshape(-1, LANES):
        lanes[0] += own
    add_lanes(lanes)
    return lanes[0, 0]


@implementation_of(sum_in_lanes)
def _compiled_sum_in_lanes(terms: Any, rounds: Any) -> Callable[..., Any]:
    number = terms.dtype
    return lambda terms, rounds: _vector_sum(terms.ctypes.data, rounds, number)


@intrinsic
def _vector_sum(typing_context: Any, address: Any, rounds: Any, number: Any) -> Any:
    """The same with vectors of eight lanes: of loops over lanes LLVM makes additions of lone numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = ir.VectorType(context.get_value_type(signature.return_type), 8)
        begin, each = builder.inttoptr(arguments[0], eight.as_pointer()), range(LANES // 8)
        totals = [cgutils.alloca_once_value(builder, ir.Constant(eight, None)) for _ in each]
        with cgutils.for_range(builder, arguments[1]) as loop:
            first = builder.mul(loop.index, ir.Constant(loop.index.type, len(each)))
            for k, total in zip(each, totals, strict=True):
                place = builder.gep(begin, [builder.add(first, ir.Constant(first.type, k))])
                builder.store(builder.fadd(builder.load(total), builder.load(place, align=1)), total)
        found = functools.reduce(builder.fadd, map(builder.load, totals))
        for count in (8, 4, 2):
            halves = (ir.Constant(ir.VectorType(ir.IntType(32), count // 2), [*range(k, count, 2)]) for k in (0, 1))
            found = builder.fadd(*(builder.shuffle_vector(found, found, half) for half in halves))
        return builder.extract_element(found, ir.Constant(ir.IntType(32), 0))

    return number.instance_type(types.intp, types.int64, number), generate
