"""Where variables start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS


def start_of(x0: Any, name: str = "x0") -> NDArray[Any]:
    """A copy of the start in a floating dtype, in C order."""
    if np.ma.is_masked(x0):
        raise TypeError(f"{name} must have no mask, got {x0!r}; the option mask leaves variables as they are")
    try:
        x = np.array(x0, copy=True, order="C", subok=False)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an array of numbers, got {x0!r}") from None
    if x.dtype not in (*FLOATS, *COMPLEX):
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real or complex numbers, got {x.dtype}")
        x = x.astype(np.float64)
    return x
