"""The cache of machine code on disk: where it can't be read or written, code is compiled all the same.

It lies in ``NUMBA_CACHE_DIR``, or else in the user's cache folder, wherever the platform has that: not beside the package, for
whose files an installer answers. Each version and each kind of processor has a folder of its own, as clusters share them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.registry import cpu_target
from numba.misc.appdirs import user_cache_dir

from fastopt.engine.digest import HAS_SOURCES

_warned = False

Result = TypeVar("Result")


def folder() -> Path:
    """Where kernels for this processor lie.

    Raises
    ------
    OSError
        If the user has no folder for such files.
    """
    own = user_cache_dir("fastopt", appauthor=False)
    root = Path(numba.config.CACHE_DIR or own)
    if not numba.config.CACHE_DIR and not root.is_absolute():
        raise OSError(f"no home folder is known for {root}")
    package = sys.modules[__name__.partition(".")[0]]
    _, cpu, _ = target = cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(repr((numba.__version__, target)).encode()).hexdigest()
    return root / f"fastopt-{package.__version__}-{cpu}-{digest[:8]}"


class Locator:
    """Tells Numba where the code of a function lies, whose name has a digest of its sources.

    Raises
    ------
    OSError
        If it can be nowhere.
    """

    def __init__(self, file: str) -> None:
        self._py_file, self._path = file, folder()
        if not self._path.is_dir():  # one that is there may be read-only, made with an image, say
            self.ensure_cache_path()
        elif not numba.config.CACHE_DIR:
            require_private(self._path)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Locator:
        """As Numba asks for it."""
        return cls(file)

    def ensure_cache_path(self) -> None:
        """Make the folder, and raise OSError if it can't be written to."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self._path).close()

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._path)

    def get_source_stamp(self) -> None:
        """Nothing: other sources have another name."""

    def get_disambiguator(self) -> str:
        """Nothing else, for the same reason."""
        return "0"


def require_private(path: Path) -> None:
    """Raise PermissionError if others may have written to a folder: what Numba loads from it can run any code."""
    if hasattr(os, "getuid"):
        found = path.stat()
        if found.st_uid != os.getuid() or found.st_mode & stat.S_IWOTH:
            raise PermissionError(f"{path} belongs to another user, or all may write to it")


class OwnImplementation(CompileResultCacheImpl):  # type: ignore[misc]
    """Numba's, in our folder."""

    _locator_classes = (Locator,)


class ForgivingCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function; a damaged file is replaced, and a folder that can't be written to is left alone."""

    _impl_class = OwnImplementation

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # Numba's has a hash of the values that a function has from around it, too, as they are pickled: that depends on what
        # the process did before. They are in the digest that the name has.
        return sig, codegen.magic_tuple()

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
    if not HAS_SOURCES:  # and so no digest
        _warn_uncached(ImportError("neither sources nor bytecode of fastopt can be read"))
        return NullCache()
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
