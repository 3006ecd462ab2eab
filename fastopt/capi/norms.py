"""The norm of a gradient, for C programs that clip it or sum it up over ranks."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cfunc, types

from fastopt.engine.compile import OPTIONS
from fastopt.engine.formats import kind_of
from fastopt.engine.loop import array_at

# A sum of squares outside of these may have lost some of its terms.
LEAST, LARGEST = 1e-290, 1e308


@functools.cache
def compiled_norm(dtype: np.dtype[Any]) -> Any:
    """``norm(elements, g, result)`` for C, with pointers as integers, which alone can be looked at."""
    width, number, double = dtype.itemsize, kind_of(dtype), kind_of(np.dtype(np.float64))

    def norm(elements: Any, g: Any, result: Any) -> Any:
        if elements < 0 or elements > 2**60 // width:
            return 1
        if result == 0 or (g == 0 and elements > 0):
            return 2
        if g & (width - 1) or result & 7:
            return 3
        numbers = array_at(g, elements, number)
        a = b = c = d = 0.0
        whole = elements - elements % 4
        for i in range(0, whole, 4):
            a += np.float64(numbers[i]) * np.float64(numbers[i])
            b += np.float64(numbers[i + 1]) * np.float64(numbers[i + 1])
            c += np.float64(numbers[i + 2]) * np.float64(numbers[i + 2])
            d += np.float64(numbers[i + 3]) * np.float64(numbers[i + 3])
        for i in range(whole, elements):
            a += np.float64(numbers[i]) * np.float64(numbers[i])
        square, unit = (a + b) + (c + d), 1.0
        if not LEAST <= square <= LARGEST:
            unit = square = 0.0
            for i in range(elements):
                size = abs(np.float64(numbers[i]))
                unit = size if size > unit or size != size else unit
            for i in range(elements if 0.0 < unit < math.inf else 0):
                square += (numbers[i] / unit) * (numbers[i] / unit)
            square = square if 0.0 < unit < math.inf else 1.0
        array_at(result, 1, double)[0] = unit * math.sqrt(square)
        return 0

    signature = types.int32(types.int64, types.uintp, types.uintp)
    return cfunc(signature, **OPTIONS)(norm)
