"""Plain arrays: their dtypes, their order in memory, and aligned memory."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
PAGE = 4096

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def aligned_zeros(size: int, dtype: DTypeLike, page_offset: int = 0) -> NDArray[Any]:
    """Vector of zeros that begins on a cache line, so many bytes after the begin of a page.

    The operating system hands out large pages untouched, so the thread that first steps an element places its page.
    """
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + PAGE, np.uint8)
    offset = (page_offset - address(raw)) % PAGE
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def address(array: NDArray[Any]) -> int:
    """Where the first element lies in memory."""
    return int(array.__array_interface__["data"][0])


def is_contiguous(array: NDArray[Any]) -> bool:
    """Whether the elements lie side by side, in C or in Fortran order."""
    return array.flags.c_contiguous or array.flags.f_contiguous


def memory_order(array: NDArray[Any]) -> Literal["C", "F"]:
    """``"F"`` for an array that is contiguous in Fortran order only, else ``"C"``."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def shaped_like(vector: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """View of a vector in the shape and memory order of `array`."""
    return vector.reshape(array.shape, order=memory_order(array))


def require_array(name: str, array: Any) -> None:
    """Raise TypeError unless `array` is a plain array of float32 or float64 in the machine's byte order."""
    # A masked array has a mask. To ask for its class would import numpy.ma, at the cost of everyone's first step.
    if not isinstance(array, np.ndarray) or hasattr(array, "mask"):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in FLOATS:
        raise TypeError(f"{name} must be of float32 or float64, got {array.dtype}")


def float_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, if it is float32 or float64 in the machine's byte order; otherwise raise TypeError."""
    try:
        for allowed in FLOATS:
            if allowed == dtype:
                return allowed
    except TypeError:
        pass  # not a dtype at all
    raise TypeError(f"{name} must be float32 or float64, got {dtype!r}")
