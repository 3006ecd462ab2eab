"""The one fused loop: each element of every array is loaded once, updated in registers and stored once.

Both kernels run the same span, so their results agree to the last bit whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import prange, uint64
from numba.extending import register_jitable

from fastopt.engine.storage import load, store

# Spans begin at multiples of this many elements: on cache lines, and at vector boundaries, for every dtype.
GRAIN = 1024


@register_jitable
def _span(rule: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
    # Unsigned bounds: with signed ones Numba adds a test for negative indices, and the loop stays scalar.
    for i in range(uint64(lo), uint64(hi)):
        old = load(arrays, i, dtype)
        new = rule(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype)))
        store(arrays, i, new)


def serial_loop(rule: Callable[..., Any], dtype: type) -> Callable[..., None]:
    """Kernel over the elements ``[lo, hi)``, for one thread.

    Parameters
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)`` gives the new theta and states of one element.
    dtype : type
        The NumPy scalar type to compute in.

    Returns
    -------
    callable
        ``kernel(arrays, g, lr, coefficients, lo, hi)``, not compiled yet. `arrays` is ``(theta, *states)``.
    """

    def kernel(arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
        _span(rule, dtype, arrays, g, lr, coefficients, lo, hi)

    return kernel


def parallel_loop(rule: Callable[..., Any], dtype: type) -> Callable[..., None]:
    """Kernel over whole arrays in ``threads`` spans: ``kernel(arrays, g, lr, coefficients, threads)``.

    See `serial_loop` for the parameters.
    """

    def kernel(arrays: Any, g: Any, lr: Any, coefficients: Any, threads: Any) -> None:
        size = arrays[0].size
        grains = (size + GRAIN - 1) // GRAIN
        length = (grains + threads - 1) // threads * GRAIN
        for part in prange(threads):
            _span(rule, dtype, arrays, g, lr, coefficients, min(part * length, size), min((part + 1) * length, size))

    return kernel
