"""Vectors of 8-bit codes, with the scales of their blocks: see `fastopt.engine.codes`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import aligned_zeros, is_contiguous, shaped_like
from fastopt.engine.codes import SIZE, decoded_from_blocks, encoded_in_blocks
from fastopt.engine.formats import FORMATS, decoded, encoded, plain
from fastopt.engine.tables import address

SCALE = np.dtype(np.uint16)


class Codes(np.ndarray[Any, Any]):
    """An array of int8, or of uint8 if no number is negative, whose scales lie elsewhere. Each tensor has blocks of its own.

    Attributes
    ----------
    scales : ndarray of uint16, shape (blocks,)
        A power of two for each block, as the bits of a bfloat16; those of one tensor after those of the other.
    sizes : sequence of int
        How many numbers each tensor has.
    """

    scales: NDArray[Any]
    sizes: Sequence[int]

    def __array_finalize__(self, other: Any) -> None:
        """Keep them where the same memory has another shape: copies have none, since the scales go on changing."""
        is_same = isinstance(other, Codes) and other.nbytes == self.nbytes and address(other) == address(self)
        self.scales, self.sizes = (other.scales, other.sizes) if is_same else (NO_SCALES, ())

    def numbers(self) -> NDArray[Any]:
        """The numbers that the codes stand for, in a new array of float32 or complex64.

        Raises
        ------
        ValueError
            If these are not all codes of a tensor, or not in their order, or a copy.
        """
        if sum(self.sizes) != self.nbytes or not is_contiguous(self):
            raise ValueError("some codes alone, and copies, have no scales: take numbers() of the whole state, and then a part")
        codes = np.asarray(self).reshape(-1, order="A")
        codes = codes if codes.dtype.names is None else codes.view(codes.dtype[0])
        parts = [decoded_from_blocks(codes[of_codes], self.scales[of_scales]) for of_codes, of_scales in self.pieces]
        found: NDArray[Any] = np.concatenate([np.zeros(0, np.float32), *parts])
        return shaped_like(found if self.dtype.names is None else found.view(np.complex64), self)

    def share_scales(self, tensors: Iterable[Codes]) -> None:
        """Let a view of each tensor have the scales of its blocks."""
        for tensor, size, (_, of_scales) in zip(tensors, self.sizes, self.pieces, strict=True):
            tensor.scales, tensor.sizes = self.scales[of_scales], (size,)

    @functools.cached_property
    def pieces(self) -> list[tuple[slice, slice]]:
        """Where the codes and the scales of each tensor are."""
        counts = [blocks(size) for size in self.sizes]
        return list(zip(_slices(self.sizes), _slices(counts), strict=True))


NO_SCALES = np.zeros(0, SCALE)


def with_scales(vector: NDArray[Any], sizes: Sequence[int], scales: NDArray[Any] | None = None) -> Codes:
    """A vector of codes for tensors of these sizes, with these scales or else some of zero."""
    codes = vector.view(Codes)
    codes.scales = aligned_zeros(sum(map(blocks, sizes)), SCALE) if scales is None else scales
    codes.sizes = tuple(sizes)
    return codes


def blocks(size: int) -> int:
    """How many blocks so many numbers fill."""
    return -(-size // SIZE)


def is_narrow(array: NDArray[Any]) -> bool:
    """Whether numbers lose something when they are written to an array."""
    return isinstance(array, Codes) or plain(array.dtype) in FORMATS


def read(state: NDArray[Any]) -> NDArray[Any]:
    """The numbers of a state, as spans read them."""
    return state.numbers() if isinstance(state, Codes) else decoded(state)


def write(state: NDArray[Any], numbers: NDArray[Any]) -> None:
    """Let a vector that is a state have these numbers, rounded to nearest."""
    if not isinstance(state, Codes):
        state[...] = encoded(numbers, state.dtype)
        return
    codes, values = np.asarray(state), np.broadcast_to(numbers, state.shape)
    for of_codes, of_scales in state.pieces:
        codes[of_codes], state.scales[of_scales] = encoded_in_blocks(values[of_codes], codes.dtype)


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = itertools.accumulate(sizes, initial=0)
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]
