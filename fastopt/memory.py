"""The memory that steps write to: nothing else may lie in it."""

from __future__ import annotations

import bisect
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import address


class _Everything(Container[int]):
    def __contains__(self, item: object) -> bool:
        return True


class Memory:
    """Disjoint contiguous pieces of memory, each with the name of its parameter, sorted by address.

    Attributes
    ----------
    owners : container of int
        ``id`` of the arrays that own some of the memory; they live as long as the pieces, which are views of them. If some of
        it is not NumPy's own, any array may lie in it, and every number is here.
    """

    def __init__(self) -> None:
        self.owners: Container[int] = set()
        self._pieces: list[tuple[int, int, str]] = []

    def copy(self) -> Memory:
        """A copy to which more can be added."""
        other = Memory()
        other.owners = set(self.owners) if isinstance(self.owners, set) else self.owners
        other._pieces = self._pieces.copy()
        return other

    def rename(self, names: Mapping[str, str]) -> None:
        """Let parameters have other names."""
        self._pieces = [(begin, end, names.get(name, name)) for begin, end, name in self._pieces]

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Take the memory of a contiguous array.

        Raises
        ------
        ValueError
            If some of it was taken before.
        """
        if other := self.overlapped(array):
            raise ValueError(f"{other} and {name} overlap in memory, or are the same array; each parameter needs its own")
        if array.size:
            begin = address(array)
            bisect.insort(self._pieces, (begin, begin + array.nbytes, name))
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if not owner.flags.owndata:
            self.owners = _Everything()
        elif isinstance(self.owners, set):
            self.owners.add(id(owner))

    def remove(self, array: NDArray[Any]) -> None:
        """Give back the memory of an array that was added."""
        begin = address(array)
        self._pieces = [piece for piece in self._pieces if piece[:2] != (begin, begin + array.nbytes)]

    def overlapped(self, array: NDArray[Any]) -> str | None:
        """The name of the parameter that has a piece that a contiguous array lies in, even if only in part."""
        begin = address(array)
        # The last piece that begins before the array ends: if it ends before the array begins, so do all before it.
        i = bisect.bisect_left(self._pieces, (begin + array.nbytes,)) - 1
        return self._pieces[i][2] if i >= 0 and begin < self._pieces[i][1] and array.nbytes else None
