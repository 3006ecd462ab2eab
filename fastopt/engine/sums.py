"""Sums over the elements of tensors, with the same bits for every number of threads.

Each tensor is cut into blocks of one length. The products of a block are added up in lanes, element ``i`` in lane ``i %
LANES``, in double precision: so nothing overflows, and the order of additions is always the same. NumPy adds up lanes and
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import float64
from numba.extending import overload
from numpy.typing import NDArray

from fastopt.engine.pairs import PairType, pair

LANES = 32
BLOCK = 8192  # elements


class Blocks:
    """The blocks of some tensors that lie one after the other.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each tensor.

    Attributes
    ----------
    bounds : ndarray of int64, shape (blocks + 1,)
        Where blocks begin and end. A tensor without elements has one block, too.
    firsts : ndarray of int64, shape (tensors,)
        The first block of each tensor.
    tensors : ndarray of int64, shape (tensors + 1,)
        Where tensors begin and end.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        counts = [max(1, -(-size // BLOCK)) for size in sizes]
        self.tensors = np.cumsum([0, *sizes], dtype=np.int64)
        pieces = [begin + BLOCK * np.arange(count) for begin, count in zip(self.tensors, counts, strict=False)]
        self.bounds: NDArray[Any] = np.concatenate([*pieces, self.tensors[-1:]]).astype(np.int64)
        self.firsts = np.cumsum([0, *counts])[:-1]
        self._sums = np.zeros((0, 0, 0))

    def cleared(self, products: int) -> NDArray[Any]:
        """Where a kernel adds up so many products: zeros, in memory that is kept for the next time."""
        if self._sums.shape[1] != products:
            self._sums = np.zeros((len(self.bounds) - 1, products, LANES))
        self._sums[...] = 0.0
        return self._sums

    def totals(self, sums: NDArray[Any]) -> NDArray[Any]:
        """What a kernel has added up, by product and tensor: shape (products, tensors)."""
        totals: NDArray[Any] = np.add.reduceat(sums.sum(axis=2), self.firsts, axis=0).T
        return totals


def add_products(sums: Any, lane: Any, pairs: Any) -> Any:
    """Add the product of each pair to ``sums[:, lane]``, in double precision (compiled code only)."""
    raise NotImplementedError("add_products exists in compiled code only")


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


def _doubled(x: Any) -> Any:
    """A number or a pair in double precision (compiled code only)."""
    raise NotImplementedError("_doubled exists in compiled code only")


@overload(_doubled, strict=False)
def _doubled_number(x: Any) -> Callable[..., Any]:
    if isinstance(x, PairType):
        return lambda x: pair(float64(x.x), float64(x.y))
    return lambda x: float64(x)
