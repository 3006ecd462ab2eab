"""Digests of all code that reaches a kernel, which become part of its name, and by that of its cache file's.

Numba's on-disk key holds neither its own settings nor the source of functions in other files.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import marshal
import pkgutil
import sys
import types as pytypes
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np

# What comes from these is told apart by their versions, which Numba looks at.
_LIBRARIES = ("builtins", "math", "numba", "numpy")


# Numba's settings that reach no code; a new one does until it is known not to.
_HARMLESS = (
    *("ALWAYS_WARN", "ANNOTATE", "CACHE", "CHROME_TRACE", "COLOR", "DEBUG_CACHE", "DEBUG_PRINT", "DEVELOPER", "DIFF_IR"),
    *("DISABLE_JIT", "DISABLE_PERFORMANCE", "DUMP", "FULL_TRACEBACKS", "GDB", "HIGHLIGHT", "HTML", "LLVM_PASS_TIMINGS"),
    *("NUMBA_", "PARALLEL_DIAGNOSTICS", "RUNNING_UNDER", "SHOW", "THREADING", "TRACE"),
)


def _settings() -> list[tuple[str, str]]:
    """Numba's settings that may reach code, as they are now: kernels compiled without optimization are another program."""
    names = [name for name in dir(numba.config) if name.isupper() and not name.startswith(_HARMLESS)]
    return [(name, str(getattr(numba.config, name))) for name in names]


def _engine() -> list[bytes]:
    """The sources of the package that this module is in, of each module."""
    package = __name__.rpartition(".")[0]
    names = [f"{package}.{found.name}" for found in pkgutil.iter_modules(sys.modules[package].__path__)]
    specs = [importlib.util.find_spec(name) for name in sorted(names)]
    return [_source_of(SimpleNamespace(__loader__=spec.loader, __name__=spec.name)) for spec in specs if spec]


@functools.cache
def digest(function: Callable[..., Any]) -> str:
    """Hexadecimal digest of all the code that reaches the kernel of a rule: the engine's files and the rule's functions."""
    total = hashlib.sha256(_ENGINE)
    total.update(repr(_settings()).encode())
    for part in _code_parts(function, set()):
        total.update(part)
        total.update(b"\0")
    return total.hexdigest()[:16]


def _code_parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    """What a function is made of, with that of everything it refers to; constants as they are."""
    if isinstance(value, tuple):  # maybe of functions, whose representations are other ones in each process
        yield f"{type(value)} {len(value)}".encode()
        for item in value:
            yield from _code_parts(item, seen)
    elif isinstance(value, (bool, int, float, complex, str, bytes, type, np.generic, np.dtype)):
        yield repr(value).encode()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode() + value.tobytes()
    elif callable(value) and id(value) not in seen:
        seen.add(id(value))
        yield from _callable_parts(value, seen)


def _callable_parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    module = inspect.getmodule(value)
    if module is None or module.__name__.partition(".")[0] not in _LIBRARIES:
        # The whole file: an implementation may be joined to the function by an overload, where nothing refers to it.
        yield _source_of(module)
    function = getattr(value, "py_func", value)  # of a dispatcher
    if not isinstance(function, pytypes.FunctionType):
        return
    names: set[str] = set()
    for code in _nested(function.__code__):
        names.update(code.co_names)
        constants = [c for c in code.co_consts if not isinstance(c, pytypes.CodeType)]
        yield code.co_code + f"{constants!r} {code.co_names!r} {code.co_varnames!r} {code.co_freevars!r}".encode()
    cells = zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True)
    defaults = [(f"default {i}", value) for i, value in enumerate(function.__defaults__ or ())]
    for name, value in (*_referred(function.__globals__, names), *cells, *defaults, *(function.__kwdefaults__ or {}).items()):
        yield name.encode()
        yield from _code_parts(value, seen)


def _source_of(module: Any) -> bytes:
    """A module's source, from a file or an archive; its bytecode, if that is all there is; empty in an interactive session."""
    loader: Any = getattr(module, "__loader__", None)
    name: str = getattr(module, "__name__", "")
    if name == "__main__" or not hasattr(loader, "get_source"):  # a script that runs is no module to its loader
        try:
            return Path(getattr(module, "__file__", None) or "").read_bytes()
        except OSError:
            return b""
    try:
        source = loader.get_source(name)
    except (ImportError, OSError):
        source = None
    return source.encode() if source is not None else _bytecode_of(loader, name)


def _bytecode_of(loader: Any, name: str) -> bytes:
    try:
        return bytes(loader.get_data(loader.get_filename(name)))
    except (ImportError, OSError, AttributeError):
        pass
    try:  # of a program that was packed into one file, where modules have names of files that don't exist
        code = loader.get_code(name)
    except (ImportError, OSError, AttributeError):
        code = None
    return b"" if code is None else marshal.dumps(code)


def _referred(namespace: Mapping[str, Any], names: set[str]) -> Iterator[tuple[str, Any]]:
    """What the names may mean here and in modules: possibly a value too many, never one too few."""
    for name in sorted(names & namespace.keys()):
        value = namespace[name]
        yield name, value
        if isinstance(value, pytypes.ModuleType):
            yield from ((f"{name}.{inner}", v) for inner, v in _referred(vars(value), names - {name}))


def _nested(code: pytypes.CodeType) -> Iterator[pytypes.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, pytypes.CodeType):
            yield from _nested(constant)


class Sources:
    """Of the engine and a module, as they are at present; pickled, they check that they are still the same when loaded."""

    def __init__(self, module: str) -> None:
        self._module, self._stamp = module, _stamp(module)

    def __reduce__(self) -> Any:
        return require_unchanged, (self._module, self._stamp)


def require_unchanged(module: str, stamp: str) -> None:
    """Raise OSError if the sources are other ones: then Numba takes a file of its cache for gone, and compiles anew.

    Users' caches refer to this function by its name: it must stay where it is.
    """
    if _stamp(module) != stamp:
        raise OSError(f"{module} or fastopt has changed since this was compiled")


@functools.cache
def _stamp(module: str) -> str:
    try:
        source = _source_of(importlib.import_module(module))
    except ImportError:
        source = b""
    return hashlib.sha256(_ENGINE + source).hexdigest()[:16]


# Read at import, as the code was: the files may be replaced before the first kernel is compiled.
_SOURCES = _engine()
_ENGINE = b"".join(_SOURCES)
HAS_SOURCES = all(_SOURCES)
