"""The cache of machine code on disk: where it can't be read or written, code is compiled all the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from numba.core.caching import FunctionCache, NullCache

_warned = False

Result = TypeVar("Result")


class ForgivingCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function; a damaged file is replaced, and a folder that can't be written to is left alone."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code for a signature, None if there is none."""
        found, failure = _attempted(lambda: super(ForgivingCache, self).load_overload(sig, target_context))
        if failure is not None:  # unpickling a damaged file can raise anything
            _attempted(self.flush)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save compiled code, if that is possible."""
        _, failure = _attempted(lambda: super(ForgivingCache, self).save_overload(sig, data))
        if failure is not None:
            _warn_uncached(failure)


def cache_of(function: Callable[..., Any]) -> Any:
    """The cache of a function, whose qualified name tells it from all others."""
    cache, failure = _attempted(lambda: ForgivingCache(function))
    if failure is not None:
        _warn_uncached(failure)
    return NullCache() if cache is None else cache


def _attempted(action: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    """What an action gives, or why it fails, twice: what fails but once is the exception of a signal handler, and is raised."""
    try:
        return action(), None
    except Exception as failure:
        try:
            action()
        except Exception as again:
            if type(again) is type(failure):
                return None, failure
        raise


def _warn_uncached(failure: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastopt works without Numba's on-disk cache, so every process compiles its kernels anew ({failure!r}); "
            "set NUMBA_CACHE_DIR to a folder of your own to mend that",
            RuntimeWarning,
            stacklevel=2,
        )
