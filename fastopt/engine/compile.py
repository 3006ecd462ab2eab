"""From a rule to a compiled kernel: names, signatures, the cache and what to do without one.

The only place with Numba options. Numba's on-disk key holds neither options nor the source of functions in other files, so
each variant gets a name of its own, with a digest of all the code that reaches it, and by that a cache file of its own.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types as pytypes
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import njit, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.extending import register_jitable

from fastopt.engine import loop

OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False}

_warned = False

Rule = Callable[..., Any]


class RuleError(TypeError):
    """A rule that can't be compiled, or doesn't return what it should. The message says how to mend it."""


def rule(function: Rule) -> Rule:
    """Mark a scalar function as the update rule of an optimizer.

    Parameters
    ----------
    function : callable
        ``function(theta, g, lr, *states, *coefficients)`` returns the new theta, or a tuple of the new theta and the new
        states. All arguments are numbers of one floating dtype, and so must the results be: no literals (``x / 2`` is
        float64), no branches (``np.where``, ``np.maximum``, ``np.sign`` keep the loop in vector registers).

    Returns
    -------
    callable
        The same function. It runs inside the fused loop, inside a user's own ``@njit`` code, and on whole NumPy arrays.
    """
    return register_jitable(function)  # type: ignore[no-any-return]


def part(function: Rule) -> Rule:
    """Mark a scalar function that rules call, or one that measures: what holds for rules holds for it, too."""
    return register_jitable(function)  # type: ignore[no-any-return]


class Variant(NamedTuple):
    """All that tells one compiled kernel from another. Pairs have a dtype of two numbers."""

    rule: Rule
    parameter: np.dtype[Any]
    gradient: np.dtype[Any]
    states: tuple[np.dtype[Any], ...]  # of the arrays that it updates besides the parameter
    coefficients: tuple[str, ...]  # what `kind_of` says of each
    lr_is_array: bool  # of the parameter's dtype, instead of a number
    parallel: bool = False

    @property
    def loop(self) -> str:
        """The kind of loop, see `loop.serial_loop`."""
        return "measure" if "sums" in self.coefficients else "tensors" if "tensors" in self.coefficients else "step"

    @property
    def name(self) -> str:
        """``<rule>_<dtypes>_<mode>_<digest>``: the kernel's name in profiles and of its cache file."""
        lr = f"_lr{_label(self.parameter.base)}" if self.lr_is_array else ""
        others = "".join(f"_{_label(dtype)}" for dtype in self.states if dtype != self.parameter)
        mode = ("parallel_" if self.parallel else "serial_") + (f"{self.loop}_" if self.loop != "step" else "")
        dtypes = f"{_label(self.parameter)}_g{_label(self.gradient)}{lr}{others}"
        return f"{self.rule.__name__}_{dtypes}_{mode}{digest(self.rule)}"

    @property
    def bytes_per_element(self) -> int:
        """Traffic: what is updated is read and written, everything else is read."""
        updated = sum(dtype.itemsize for dtype in (self.parameter, *self.states)) * (1 if self.loop == "measure" else 2)
        read = (self.lr_is_array + self.coefficients.count("array")) * self.parameter.base.itemsize + self.gradient.itemsize
        return updated + read + self.coefficients.count("mask")

    @property
    def signature(self) -> Any:
        """The Numba signature: C-contiguous arrays, all that is not updated may be read-only."""

        def read(dtype: Any, dimensions: int = 1) -> Any:
            return types.Array(dtype, dimensions, "C", readonly=True)

        number = numba.from_dtype(self.parameter.base)
        kinds = {
            "number": types.float64,
            "mask": read(types.boolean),
            "array": read(number),
            "tensors": read(types.float64, 2),
            "bounds": read(types.int64),
            "sums": types.Array(types.float64, 3, "C"),
        }
        coefficients = [kinds[kind] for kind in self.coefficients]
        updated = [_array(dtype) for dtype in (self.parameter, *self.states)]
        lr = read(number) if self.lr_is_array else types.float64
        span = (types.int64, types.int64)  # begin and end, or size and threads
        return types.void(*span, types.Tuple(updated), _array(self.gradient, readonly=True), lr, types.Tuple(coefficients))


def _array(dtype: np.dtype[Any], readonly: bool = False) -> Any:
    """The type of a contiguous array of numbers, or of pairs in a second dimension."""
    return types.Array(numba.from_dtype(dtype.base), 1 + len(dtype.shape), "C", readonly=readonly)


def _label(dtype: np.dtype[Any]) -> str:
    return dtype.base.str[1:] + ("pair" if dtype.shape else "")


def kind_of(coefficient: Any) -> str:
    """How a loop takes a coefficient: as a number, or an array with a value for each element or tensor, or of another use."""
    if not isinstance(coefficient, np.ndarray):
        return "number"
    if coefficient.ndim > 1:
        return "tensors" if coefficient.ndim == 2 else "sums"
    return {"b": "mask", "i": "bounds"}.get(coefficient.dtype.kind, "array")


@functools.cache
def dispatcher(variant: Variant) -> Any:
    """The Numba dispatcher of a variant, compiled or loaded from the cache on the first call.

    Raises
    ------
    RuntimeError
        If Numba's compiler is switched off.
    RuleError
        If the rule does not compile, leaves the dtype it was given, or returns a wrong number of values.
    """
    if numba.config.DISABLE_JIT:
        raise RuntimeError("fastopt's kernels are compiled by Numba, but NUMBA_DISABLE_JIT switches its compiler off")
    # A fork waits for this lock (see `runtime`). Numba takes it to compile, but not to make a dispatcher, which imports modules
    # and takes locks of other kinds: a child that was forked meanwhile would wait for them for ever.
    with global_compiler_lock:
        try:
            return _cached(variant)
        except NumbaError as failure:
            raise RuleError(_explained(variant.rule, failure)) from failure
        except Exception as failure:  # no folder to write to, a full disk, a file that can be neither read nor replaced
            kernel = compiled(jitted(variant, cache=False), variant)  # raises again what has nothing to do with the cache
            _warn_uncached(failure)
            return kernel


@functools.cache
def entry_point(variant: Variant) -> Callable[..., None]:
    """The compiled function itself, without the dispatcher's type checks (they cost more than a small step).

    Call it only with what `Variant.signature` says: it would take an array of another dtype of the same width.
    """
    return dispatcher(variant).overloads[variant.signature.args].entry_point  # type: ignore[no-any-return]


def jitted(variant: Variant, cache: bool) -> Any:
    """A Numba dispatcher of the variant's kernel, not compiled yet."""
    make = loop.parallel_loop if variant.parallel else loop.serial_loop
    kernel = make(variant.rule, variant.parameter.base.type, variant.loop)
    kernel.__name__ = kernel.__qualname__ = variant.name
    return njit(**OPTIONS, parallel=variant.parallel, cache=cache)(kernel)


def compiled(dispatcher: Any, variant: Variant) -> Any:
    """The same dispatcher with the variant's signature, and closed for others."""
    dispatcher.compile(variant.signature)
    dispatcher.disable_compile()
    return dispatcher


def _cached(variant: Variant) -> Any:
    """Load the kernel from its cache file, or compile and save it; a damaged file is replaced."""
    dispatcher = jitted(variant, cache=True)
    try:
        return compiled(dispatcher, variant)
    except NumbaError:
        raise
    except Exception:  # a damaged file can raise anything while it is unpickled
        dispatcher._cache.flush()
        return compiled(dispatcher, variant)


def _explained(rule: Rule, failure: NumbaError) -> str:
    """What is wrong with a rule, and what can be done about it."""
    own = re.search(r"the rule returned .*", str(failure))
    if own is None:
        return f"Numba can't compile the rule {rule.__name__}: {failure}"
    advice = ""
    if "where it was given" in own[0]:
        advice = (
            ". A literal number does that: make 0.5 or 2.0 an argument (a hyper-parameter, or a constant such as half), and "
            "write x * x for x ** 2, np.maximum(x, zero) for max(x, 0)"
        )
    return f"{own[0].replace('the rule', f'the rule {rule.__name__}', 1)}{advice}"


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


# Read at import, as the code was: the files may be replaced before the first kernel is compiled.
_ENGINE_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))

# What comes from these is told apart by their versions, which Numba looks at.
_LIBRARIES = ("builtins", "math", "numba", "numpy")


@functools.cache
def digest(function: Callable[..., Any]) -> str:
    """Hexadecimal digest of all the code that reaches the kernel of a rule: the engine's files and the rule's functions."""
    total = hashlib.sha256(_ENGINE_SOURCES)
    for part in _code_parts(function, set()):
        total.update(part)
        total.update(b"\0")
    return total.hexdigest()[:16]


def _code_parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    """What a function is made of, with that of everything it refers to; constants as they are."""
    if isinstance(value, (bool, int, float, complex, str, bytes, tuple, type, np.generic, np.dtype)):
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


def _source_of(module: pytypes.ModuleType | None) -> bytes:
    """A module's file, empty if it has none, as in an interactive session."""
    try:
        return Path(getattr(module, "__file__", None) or "").read_bytes()
    except OSError:
        return b""


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
