"""Sums over the elements of tensors, with the same bits for every number of threads.

Each tensor is cut into blocks of one length. The products of a block are added up in lanes, element ``i`` in lane ``i %
LANES``, in double precision: so nothing overflows, and the order of additions is always the same. Then the lanes are added up,
and the blocks of a tensor, from the first to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64
from numba.extending import overload, register_jitable

from fastopt.engine.pairs import Pair, PairType, pair

LANES = 32
BLOCK = 8192  # elements


def add_products(sums: Any, lane: Any, pairs: Any) -> Any:
    """Add the product of each pair to ``sums[:, lane]``, in double precision."""
    for product, (a, b) in enumerate(pairs):
        sums[product, lane] += _doubled(a) * _doubled(b)


@overload(add_products, strict=False)
def _add_products(sums: Any, lane: Any, pairs: Any) -> Callable[..., Any]:
    last = len(pairs) - 1
    if last < 0:
        return lambda sums, lane, pairs: None

    def add(sums: Any, lane: Any, pairs: Any) -> None:
        a, b = pairs[last]
        sums[last, lane] += _doubled(a) * _doubled(b)
        add_products(sums, lane, pairs[:last])

    return add


@register_jitable
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
    return Pair(np.float64(x.x), np.float64(x.y)) if isinstance(x, Pair) else np.float64(x)


@overload(_doubled, strict=False)
def _doubled_number(x: Any) -> Callable[..., Any]:
    if isinstance(x, PairType):
        return lambda x: pair(float64(x.x), float64(x.y))
    return lambda x: float64(x)
