"""Files of arrays with a description of them: NumPy's own ``.npz``, neither compressed nor pickled.

That is a ZIP archive with an ``.npy`` file for each array and a checksum for each file, which NumPy, and libraries for many
languages, read without this one. The description is one more file in it, JSON. Nothing in it is ever executed, and an array is
read where the file lies in memory, so that a file can't ask for more than it is long.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fastopt.saving.replacing import hand_over

DESCRIPTION = "description.json"
CHUNK = 1 << 20  # bytes: what the checksum has seen is still in the cache when it is written
HANDED_OVER = 1 << 24

# In the head of a file in an archive: its length without the name and what follows that, and where it has their lengths.
HEAD, LENGTHS = 30, 26

KINDS = "biufc"

Result = TypeVar("Result")

READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def write(file: BinaryIO, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an archive to a file.

    Parameters
    ----------
    file : file
        Opened for writing bytes.
    description : mapping
        Of what JSON can hold.
    arrays : mapping of str to ndarray
        Of any numbers; those of ml_dtypes become unsigned integers, see `storable`.
    """
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(DESCRIPTION, json.dumps(description, indent=1))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                stored = storable(name, array)
                order: Literal["C", "F"] = "F" if stored.flags.fnc else "C"
                head = {"descr": npy.dtype_to_descr(stored.dtype), "fortran_order": order == "F", "shape": stored.shape}
                npy.write_array_header_2_0(member, head)  # type: ignore[arg-type, unused-ignore]
                data = memoryview(np.ascontiguousarray(stored.reshape(-1, order=order)).view(np.uint8))  # type: ignore[arg-type, unused-ignore]
                for begin in range(0, len(data), CHUNK):
                    member.write(data[begin : begin + CHUNK])
                    if begin % HANDED_OVER == HANDED_OVER - CHUNK:
                        hand_over(file)


def storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array, or its bits as unsigned integers where NumPy itself doesn't know the numbers (bfloat16, for one).

    Raises
    ------
    TypeError
        If it holds no numbers.
    """
    if array.dtype.kind == "V" and array.dtype.fields is None and array.dtype.itemsize in (1, 2):
        return array.view(f"u{array.dtype.itemsize}")
    if array.dtype.kind not in KINDS:
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    return array


class Archive:
    """What `write` has written, to be read.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    description : object
        As it was given to `write`; nothing in it has been checked.

    Raises
    ------
    ValueError
        If it is a file of another kind, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `__exit__`
        try:
            self.description: Any = _sound(self._path, self._begun)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def array(self, name: str) -> NDArray[Any]:
        """An array as a read-only view of the file in memory, which may be unaligned, when it has agreed with its checksum.

        Raises
        ------
        ValueError
            If it isn't there, or damaged.
        """
        member = f"{name}.npy"
        if member not in self._members:
            raise ValueError(f"{self._path} has no array {name!r}")
        return _sound(self._path, lambda: self._array(name, member))

    def _begun(self) -> Any:
        self._memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._archive = zipfile.ZipFile(self._file)
        self._members = {info.filename: info for info in self._archive.infolist()}
        return json.loads(self._checked(DESCRIPTION).read())

    def _array(self, name: str, member: str) -> NDArray[Any]:
        info, file = self._members[member], self._checked(member)
        shape, is_fortran, dtype = READERS[npy.read_magic(file)](file)
        if dtype.kind not in KINDS:
            raise ValueError(f"{name} is of {dtype}")
        if info.file_size != file.tell() + dtype.itemsize * math.prod(shape):
            raise ValueError(f"{name} is of another length than its head says")
        begin = info.header_offset + HEAD + sum(struct.unpack_from("<HH", self._memory, info.header_offset + LENGTHS))
        return np.ndarray(shape, dtype, self._memory, begin + file.tell(), order="F" if is_fortran else "C")

    def _checked(self, member: str) -> Any:
        """A file of the archive at its begin, when all of it has agreed with its checksum."""
        info = self._members[member]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed")
        file = self._archive.open(info)
        while file.read(CHUNK):
            pass
        file.seek(0)
        return file


def _sound(path: str, read: Callable[[], Result]) -> Result:
    """What reading gives, if the file is sound: every error is one of the file, whatever libraries make of it."""
    try:
        return read()
    except MemoryError:  # which a sound file may bring about
        raise
    except Exception as error:
        try:
            read()
        except type(error):
            raise ValueError(f"{path} is no checkpoint, or a damaged one: {error!r}") from error
        raise  # what comes up but once is the exception of a signal handler
