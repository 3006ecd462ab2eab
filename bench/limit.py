"""The streaming limit: a loop that only moves the bytes that a step has to move.

Every array that a step updates is loaded, gets one addition and is stored; every other array is loaded. No optimizer with
this state can be faster than memory and caches allow this loop to be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange, types

from bench.measure import interleaved


def _touch(theta, g):
    for i in prange(theta.size):
        theta[i] += g[i]


def _touch_with_rates(theta, g, lr):
    for i in prange(theta.size):
        theta[i] += g[i] + lr[i]


def _touch_with_one_state(theta, m, g):
    for i in prange(theta.size):
        theta[i] += g[i]
        m[i] += g[i]


def _touch_with_two_states(theta, m, v, g):
    for i in prange(theta.size):
        theta[i] += g[i]
        m[i] += g[i]
        v[i] += g[i]


# By the number of arrays that are updated, and of those that are only read.
LOOPS = {(1, 1): _touch, (1, 2): _touch_with_rates, (2, 1): _touch_with_one_state, (3, 1): _touch_with_two_states}


@functools.cache
def _compiled(updated: int, read: int, dtype: np.dtype[Any], parallel: bool) -> Callable[..., None]:
    """The entry point, as fastopt calls its kernels: the dispatcher's checks would cost more than a small step."""
    signature = types.void(*[types.Array(numba.from_dtype(dtype), 1, "C")] * (updated + read))
    # Not cached: the on-disk key would not tell the parallel variant from the serial one.
    jitted = numba.njit([signature], parallel=parallel, error_model="numpy")(LOOPS[updated, read])
    return jitted.overloads[signature.args].entry_point


def streaming_step(updated: int, read: int, size: int, dtype: np.dtype[Any]) -> Callable[[], None]:
    """One pass over as many arrays: by the serial or by the parallel loop, whichever is faster at this size.

    Parameters
    ----------
    updated, read : int
        Arrays that are loaded and stored, and arrays that are only loaded.
    size : int
        Elements of each array.
    dtype : dtype
        Of each array.
    """
    arrays = [np.zeros(size, dtype) for _ in range(updated)] + [np.ones(size, dtype) for _ in range(read)]
    loops = {parallel: functools.partial(_compiled(updated, read, dtype, parallel), *arrays) for parallel in (False, True)}
    seconds = interleaved(loops, rounds=5, block_seconds=0.005)
    return loops[min(loops, key=lambda parallel: min(seconds[parallel]))]
