"""Without a compiler: what would be compiled runs as it is, with rules on whole NumPy arrays, slowly and with the same bits.

People set ``NUMBA_DISABLE_JIT=1`` to look into their own code with a debugger; it shows them rules, too.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

# As it was at import. What is compiled and what is not can't call each other.
IS_INTERPRETED = bool(numba.config.DISABLE_JIT)


def _to_tuple(row: Any, count: int) -> tuple[Any, ...]:
    return tuple(row[:count])


# The first numbers of an array, so many as are known when this is compiled.
fixed_tuple = _to_tuple if IS_INTERPRETED else to_fixed_tuple


class InterpretedSpan:
    """Stands in the place of a compiled span; whoever holds its address must hold it, too.

    Parameters
    ----------
    function : callable
        What would be compiled.
    explained : callable
        Gives the exception to raise for one of the function's.
    """

    cache_hits = 0

    def __init__(self, function: Callable[..., None], explained: Callable[[Exception], Exception]) -> None:
        warn_once()
        self._function, self._explained = function, explained

    @property
    def address(self) -> int:
        """Where this object lies."""
        return id(self)

    def __call__(self, *arguments: int) -> None:
        """Run it."""
        try:
            self._function(*arguments)
        except numba.core.errors.NumbaError as failure:
            raise self._explained(failure) from None


def interpreted(function: Callable[..., int], failed: Callable[..., None]) -> Callable[..., int]:
    """A function that would be compiled, to be called as if it were; ``failed(*arguments)`` is called if it raises."""
    warn_once()

    def run(*arguments: Any) -> int:
        try:
            with np.errstate(all="ignore"):
                return function(*arguments)
        except BaseException:
            failed(*arguments)
            raise

    return run


@functools.cache
def warn_once() -> None:
    """Say that all is slow."""
    warnings.warn(
        "NUMBA_DISABLE_JIT is set: fastopt's rules run on whole NumPy arrays, with the same bits as compiled ones, but slowly",
        RuntimeWarning,
        stacklevel=2,
    )
