"""The memory that steps write to: nothing else may lie in it."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.tables import address

# Of a piece: the name of its parameter, or where those of several begin, with their names.
Names = str | list[tuple[int, str]]


class Memory:
    """Disjoint contiguous pieces of memory with the names of their parameters, sorted by address.

    Attributes
    ----------
    busy : ndarray of int64, shape (1,)
        Zero but while compiled code writes to the pieces; then the address of the plan by which it does.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, Names]] = []
        self.busy = np.zeros(1, np.int64)

    def copy(self) -> Memory:
        """A copy to which more can be added."""
        other = Memory()
        other._pieces, other.busy = self._pieces.copy(), self.busy
        return other

    @contextlib.contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """Have the same pieces as before if there is an exception within a ``with`` block."""
        before = self._pieces.copy()
        try:
            yield
        except BaseException:
            self._pieces = before
            raise

    def rename(self, names: Mapping[str, str]) -> None:
        """Let parameters have other names."""

        def renamed(name: Names) -> Names:
            return names.get(name, name) if isinstance(name, str) else [(begin, names.get(n, n)) for begin, n in name]

        self._pieces = [(begin, end, renamed(name)) for begin, end, name in self._pieces]

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
            bisect.insort(self._pieces, (begin, begin + array.nbytes, name), key=_begin)

    def add_buffer(self, buffer: NDArray[Any], names: Sequence[str], begins: Sequence[int]) -> None:
        """Take a new buffer, which has vectors of several parameters; they begin at these elements."""
        if buffer.size and names:
            begin, item = address(buffer), buffer.itemsize
            places = [(begin + item * at, name) for at, name in zip(begins, names, strict=True)]
            bisect.insort(self._pieces, (begin, begin + buffer.nbytes, places), key=_begin)

    def remove(self, array: NDArray[Any]) -> None:
        """Give back the memory of an array that was added."""
        i = bisect.bisect_left(self._pieces, address(array), key=_begin)
        if array.size and i < len(self._pieces) and self._pieces[i][0] == address(array):
            del self._pieces[i]

    def overlapped(self, array: NDArray[Any]) -> str | None:
        """The name of the parameter that has a piece that a contiguous array lies in, even if only in part."""
        begin = address(array)
        # The last piece that begins before the array ends: if it ends before the array begins, so do all before it.
        i = bisect.bisect_left(self._pieces, (begin + array.nbytes,)) - 1
        if i < 0 or begin >= self._pieces[i][1] or not array.nbytes:
            return None
        name = self._pieces[i][2]
        if isinstance(name, str):
            return name
        return name[max(0, bisect.bisect_right(name, begin, key=_begin) - 1)][1]

    def table(self) -> NDArray[Any]:
        """Where pieces begin and end, shape (pieces, 2)."""
        return np.array([piece[:2] for piece in self._pieces], np.int64).reshape(-1, 2)


def _begin(piece: tuple[Any, ...]) -> int:
    return int(piece[0])
