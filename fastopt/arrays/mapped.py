"""Vectors that lie in a file, for what is larger than memory: the operating system brings pages in and out."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

if sys.platform != "win32":
    import fcntl

CHUNK = 1 << 20  # bytes of zeros that are written at once where nothing better is to be had


class MappedFile:
    """A file with vectors, one after the other, of which this process is the only one to write.

    The end of one that wasn't begun with does what `release` does.

    Parameters
    ----------
    path : path
        Of a file that is made, unless there is one: then its vectors are those that `zeros` gives.

    Attributes
    ----------
    path : str
    is_new : bool
        Whether there was no such file, or an empty one.
    release : callable
        Lets others have the file as it was, and removes one that wasn't there.

    Raises
    ------
    ValueError
        If another optimizer has the file, or it is a folder or a device; and on Windows, where neither locks nor the
        allocation are there.
    OSError
        If the file can't be opened for reading and writing, or lies where there are no locks.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if sys.platform == "win32":
            raise ValueError("state_path is not for Windows, where space in a file can't be reserved")
        self.path = os.fspath(path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"state_path must be of a file, but {self.path} is there and is none")
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if not isinstance(error, BlockingIOError):  # of a file system without locks, say
                raise
            raise ValueError(f"state_path must be of one optimizer at a time, but another one has {self.path}") from None
        self._size = os.fstat(self._file.fileno()).st_size
        self.is_new = self._size == 0
        self.release = weakref.finalize(self, _release, self._file, self.path if self.is_new else None)
        self._end = 0
        self._memories: list[mmap.mmap] = []

    def zeros(self, size: int, dtype: DTypeLike, page_offset: int = 0) -> NDArray[Any]:
        """The next vector: of zeros in a new file, for which all space is reserved first, else what is there.

        Parameters
        ----------
        size, dtype, page_offset
            As of `layout.aligned_zeros`.

        Raises
        ------
        OSError
            If the disk is full, or the file may not become so large.
        ValueError
            If the file that is there is shorter.
        """
        grain = mmap.ALLOCATIONGRANULARITY
        begin, length = self._end, -(-(page_offset + size * np.dtype(dtype).itemsize) // grain) * grain or grain
        if self.is_new:
            self._reserve(begin, length)
        elif begin + length > self._size:
            raise ValueError(f"state_path must have the states of this optimizer, for which {self.path} is too short")
        memory = mmap.mmap(self._file.fileno(), length, offset=begin)
        self._end += length
        self._memories.append(memory)
        return np.ndarray((size,), dtype, memory, page_offset)

    def begin(self, room: int) -> None:
        """Overwrite what follows the vectors, so that nobody takes them for finished while they change.

        Parameters
        ----------
        room : int
            Bytes to reserve for what will follow them at the end.

        Raises
        ------
        OSError
            If the disk is full. What follows the vectors is still there then, as after any other exception.
        """
        size, file = max(self._size, self._end), self._file.fileno()
        before = os.pread(file, min(CHUNK, size - self._end), self._end)  # its begin, without which the rest is nothing
        try:
            self._reserve(size, room)
            self._write_zeros(self._end, len(before))
            os.fsync(file)
            self.release.detach()
        except BaseException:
            os.pwrite(file, before, self._end)
            os.ftruncate(file, size)
            raise

    @contextlib.contextmanager
    def finishing(self) -> Iterator[BinaryIO]:
        """A ``with`` block that gets the file, to write what follows the vectors when these are on the disk."""
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the file was removed while an optimizer had its states there", self.path)
        with errors_of(self.path):
            for memory in self._memories:
                memory.flush()
            self._file.seek(self._end)
            yield self._file
            self._file.flush()
            self._file.truncate()
            os.fsync(self._file.fileno())

    def let_go(self) -> None:
        """Let others have the file as it is."""
        _release(self._file)

    def _reserve(self, begin: int, length: int) -> None:
        with errors_of(self.path):
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), begin, length)
            else:
                self._write_zeros(begin, length)

    def _write_zeros(self, begin: int, length: int) -> None:
        end = begin + length
        while begin < end:  # past the file's buffer, which an interrupt would leave with zeros to write
            begin += os.pwrite(self._file.fileno(), bytes(min(CHUNK, end - begin)), begin)


def _release(file: BinaryIO, made: str | None = None) -> None:
    """Let others have a file; one that was made in vain is removed."""
    if made is not None:
        Path(made).unlink(missing_ok=True)
    if not file.closed:
        fcntl.flock(file, fcntl.LOCK_UN)  # for maps have the file, too, as long as somebody has a view of them
        file.close()


@contextlib.contextmanager
def errors_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have errors of the system name a file that users know, where they name a hidden one, or none as those of writing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)
            del error.filename2  # of two names
        raise
