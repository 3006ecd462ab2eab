"""Plain arrays: their dtypes, their order in memory, and aligned memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.engine.formats import plain
from fastopt.engine.tables import address

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
PAGE = 4096

# Bits of ``flags.num``, by the names of NumPy's C interface: to ask for all at once takes half as long as one by one.
C_CONTIGUOUS, F_CONTIGUOUS, OWNDATA, ALIGNED = 0x1, 0x2, 0x4, 0x100

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
COMPLEX = (np.dtype(np.complex64), np.dtype(np.complex128))

# Of 16 bits: uint16 stands for bfloat16, as ml_dtypes has it or as its bits.
NARROW = (np.dtype(np.float16), np.dtype(np.uint16))

REAL = (*FLOATS, *NARROW)
NUMBERS = (*FLOATS, *COMPLEX, *NARROW)


def aligned_zeros(size: int, dtype: DTypeLike, page_offset: int = 0) -> NDArray[Any]:
    """Vector of zeros that begins on a cache line, so many bytes after the begin of a page.

    The operating system hands out large pages untouched, so the thread that first steps an element places its page.
    """
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + PAGE, np.uint8)
    offset = (page_offset - address(raw)) % PAGE
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def complex_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The complex dtype whose parts have a real one; where NumPy has none, records with the parts ``real`` and ``imag``."""
    return COMPLEX[FLOATS.index(dtype)] if dtype in FLOATS else np.dtype([("real", dtype), ("imag", dtype)])


def is_contiguous(array: NDArray[Any]) -> bool:
    """Whether the elements lie side by side, in C or in Fortran order."""
    return array.flags.c_contiguous or array.flags.f_contiguous


def memory_order(array: NDArray[Any]) -> Literal["C", "F"]:
    """``"F"`` for an array that is contiguous in Fortran order only, else ``"C"``."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def shaped_like(vector: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """View of a vector in the shape and memory order of `array`."""
    return vector.reshape(array.shape, order=memory_order(array))


def require_array(name: str, array: Any, dtypes: Sequence[np.dtype[Any]] = FLOATS) -> NDArray[Any]:
    """The array in NumPy's own class, as one of another could lie about what it is.

    Raises
    ------
    TypeError
        Unless it is an array of one of these dtypes in the machine's byte order.
    """
    # A masked array has a mask. To ask for its class would import numpy.ma, at the cost of everyone's first step.
    if not isinstance(array, np.ndarray) or hasattr(array, "mask"):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    found: NDArray[Any] = np.asarray(array)
    if found.dtype not in dtypes and plain(found.dtype) not in dtypes:
        raise TypeError(f"{name} must be of {_listed(dtypes)}, got {found.dtype}")
    return found


def _listed(dtypes: Sequence[np.dtype[Any]]) -> str:
    *others, last = ("bfloat16 (uint16 for its bits)" if dtype == np.uint16 else str(dtype) for dtype in dtypes)
    return f"{', '.join(others)} or {last}" if others else last


def parts(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous vector as real numbers: of a complex one, real and imaginary parts in turn."""
    return array.view(array.real.dtype) if array.dtype.kind == "c" else array


def one_of(name: str, dtype: DTypeLike, dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The dtype, if it is one of these, in the machine's byte order; otherwise raise TypeError."""
    try:
        for allowed in dtypes:
            if allowed == dtype:
                return allowed
        if plain(np.dtype(dtype)) in dtypes:
            return np.dtype(dtype)
    except TypeError:
        pass  # not a dtype at all
    raise TypeError(f"{name} must be {_listed(dtypes)}, got {dtype!r}")
