"""From a rule to machine code. The only place with Numba's options.

Each span has a name of its own, with a digest of all the code that reaches it, and by that a cache file of its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numba
import numpy as np
from numba import njit
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.sigutils import normalize_signature

from fastopt.engine import loop
from fastopt.engine.addresses import SPAN_SIGNATURE
from fastopt.engine.cache import cache_of
from fastopt.engine.digest import digest
from fastopt.engine.formats import computing, kind_of, label
from fastopt.engine.interpreted import IS_INTERPRETED, InterpretedSpan
from fastopt.engine.registration import registered

OPTIONS = {"error_model": "numpy", "boundscheck": False}

# Of all that Numba may run in parallel, the loops that say so.
ONLY_PRANGE = {
    "comprehension": False,
    "fusion": False,
    "inplace_binop": False,
    "numpy": False,
    "prange": True,
    "reduction": False,
    "setitem": False,
    "stencil": False,
}

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
    return registered(function)


def part(function: Rule) -> Rule:
    """Mark a scalar function that rules call, or one that measures: what holds for rules holds for it, too."""
    return registered(function)


class Variant(NamedTuple):
    """All that tells one compiled span from another. The dtype of a pair is the complex one, that of bfloat16 is uint16."""

    rule: Rule
    parameter: np.dtype[Any]
    gradient: np.dtype[Any]
    states: tuple[np.dtype[Any], ...]  # of the arrays that it updates besides the parameter
    reads: tuple[np.dtype[Any] | None, ...]  # of the rate and each coefficient, None for a number
    products: int = 0  # that a measure sums up; 0 for a rule
    stochastic: tuple[bool, ...] = ()  # whether theta and each state are rounded so; none of them if it is empty
    of_rows: int = 0  # how many of the last states have one number for each row of a table

    @property
    def name(self) -> str:
        """``<rule>_<dtypes>_<digest>``: the span's name in profiles and of its cache file."""
        is_plain = all(dtype == self.parameter for dtype in self.states)
        others = "" if is_plain else "".join(f"_{label(dtype)}" for dtype in self.states)
        arrays = "".join("n" if dtype is None else label(dtype) for dtype in self.reads)
        rounding = "".join("_s" if each else "_n" for each in self.stochastic)
        of_rows = f"_r{self.of_rows}" if self.of_rows else ""
        kinds = f"{label(self.parameter)}_g{label(self.gradient)}{others}_{arrays}{rounding}{of_rows}"
        return f"{self.rule.__name__}_{kinds}_{digest(self.rule)}"

    @property
    def bytes_per_element(self) -> int:
        """Traffic: what is updated is read and written, everything else is read; of rows it is next to nothing."""
        states = self.states[: len(self.states) - self.of_rows]
        updated = sum(dtype.itemsize for dtype in (self.parameter, *states)) * (1 if self.products else 2)
        return updated + self.gradient.itemsize + sum(dtype.itemsize for dtype in self.reads if dtype is not None)

    def span(self) -> Callable[..., None]:
        """The loop of the rule as a function of addresses, not compiled yet."""
        number = computing(self.parameter).type(0).real.dtype.type
        dtypes = (self.parameter, *self.states)
        updated = tuple(map(kind_of, dtypes, self.stochastic or [False] * len(dtypes)))
        gradient = kind_of(self.gradient)
        read = tuple(loop.NUMBER if dtype is None else dtype.type for dtype in self.reads)
        if self.products:
            span = loop.measuring_span(self.rule, number, updated, gradient, read, self.products)
        elif self.of_rows:
            span = loop.row_span(self.rule, number, updated, gradient, read, self.of_rows)
        else:
            span = loop.updating_span(self.rule, number, updated, gradient, read)
        span.__name__ = span.__qualname__ = self.name
        return span


class Compilable(Protocol):
    """What is compiled to a function of addresses: a span, or what is called like one."""

    @property
    def name(self) -> str:
        """What tells it from others, and is the name of the function."""

    @property
    def rule(self) -> Rule:
        """What it is made from."""

    def span(self) -> Callable[..., None]:
        """The function, not compiled yet."""


# By name: a rule that comes from another process is another function each time. The compiled object keeps its code in memory.
_spans: dict[str, Any] = {}


def compiled_span(variant: Compilable) -> Any:
    """The compiled span of a variant, from the cache on disk if it is there.

    Raises
    ------
    RuntimeError
        If Numba's compiler was switched off since fastopt was imported.
    RuleError
        If the rule does not compile, leaves the dtype it was given, or returns a wrong number of values.
    """
    found = _spans.get(variant.name)
    return _spans.setdefault(variant.name, compile_span(variant)) if found is None else found


def compile_span(variant: Compilable, is_cached: bool = True) -> Any:
    """Compile the span of a variant anew, or load it from the cache on disk."""
    if IS_INTERPRETED:
        return InterpretedSpan(variant.span(), functools.partial(_error_of, variant.rule))
    _require_compiler()
    # A fork waits for this lock (see `runtime`). Numba takes it to compile, but not before, when it imports modules and takes
    # locks of other kinds: a child that was forked meanwhile would wait for them for ever.
    with global_compiler_lock:
        try:
            return compiled_callback(variant.span(), SPAN_SIGNATURE, is_cached)
        except NumbaError as failure:
            raise _error_of(variant.rule, failure) from failure


def compiled_callback(function: Callable[..., Any], signature: Any, is_cached: bool = True) -> Any:
    """A function that C can call, compiled or loaded from the cache, where its qualified name must tell it from all others.

    One that was loaded has machine code only, and can't show LLVM's.
    """
    compiled: Any = CFunc(function, normalize_signature(signature), locals={}, options=dict(OPTIONS))
    if is_cached:
        compiled._cache = cache_of(function)
    compiled.compile()
    return compiled


def compiled_function(function: Callable[..., Any], signature: Any, name: str, parallel: bool = False) -> Any:
    """A function of the engine's own, compiled for one signature or loaded from the cache, as a Numba dispatcher."""
    _require_compiler()
    with global_compiler_lock:
        function.__name__ = function.__qualname__ = f"{name}_{digest(function)}"
        dispatcher = njit(**OPTIONS, parallel=ONLY_PRANGE if parallel else False)(function)
        dispatcher._cache = cache_of(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def _require_compiler() -> None:
    if numba.config.DISABLE_JIT:
        raise RuntimeError("Numba's compiler was switched off after fastopt was imported; set NUMBA_DISABLE_JIT before")


def _error_of(rule: Rule, failure: Exception) -> RuleError:
    """What is wrong with a rule, and what can be done about it."""
    own = re.search(r"the rule returned .*", str(failure))
    if own is None:
        return RuleError(f"Numba can't compile the rule {rule.__name__}: {failure}")
    advice = ""
    if "where it was given" in own[0]:
        advice = (
            ". A literal number does that: make 0.5 or 2.0 an argument (a hyper-parameter, or a constant such as half), and "
            "write x * x for x ** 2, np.maximum(x, zero) for max(x, 0)"
        )
    return RuleError(f"{own[0].replace('the rule', f'the rule {rule.__name__}', 1)}{advice}")
