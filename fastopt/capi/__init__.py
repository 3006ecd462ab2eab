"""A C interface: functions that step buffers of C, C++ and Fortran programs, in the process of Python or without it.

Each is compiled from the optimizer's own rule, and from the formulas of its coefficients as `formulas` finds them, so that it
gives the same bits. It runs in the calling thread, needs no GIL, and keeps nothing between calls.
"""

from __future__ import annotations

import functools
import linecache
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import DTypeLike

from fastopt import optimizers
from fastopt.arrays.layout import FLOATS, REAL, one_of
from fastopt.capi.formulas import Branch, Tree, traced
from fastopt.capi.norms import compiled_norm
from fastopt.description.hyperparameters import Check, Number, Several, finite
from fastopt.engine.compile import Rule, compiled_callback
from fastopt.engine.digest import digest
from fastopt.engine.formats import FORMATS, computing, kind_of, plain
from fastopt.engine.jitable import jitable
from fastopt.engine.loop import array_at, span
from fastopt.engine.noise import key_of
from fastopt.optimizer import Optimizer

# Names of the functions, the optimizers behind them, and the arguments that choose their rules.
FUNCTIONS: Mapping[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "adabelief": (optimizers.AdaBelief, {}),
    "adadelta": (optimizers.AdaDelta, {}),
    "adagrad": (optimizers.AdaGrad, {}),
    "adagrad_rates": (optimizers.AdaGrad, {"accumulate": "rates"}),
    "adam": (optimizers.Adam, {}),
    "adamax": (optimizers.AdaMax, {}),
    "adamw": (optimizers.AdamW, {}),
    "adan": (optimizers.Adan, {}),
    "adopt": (optimizers.ADOPT, {}),
    "amsgrad": (optimizers.Adam, {"amsgrad": True}),
    "lion": (optimizers.Lion, {}),
    "momentum": (optimizers.SGD, {"momentum": 0.9}),
    "nesterov": (optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "radam": (optimizers.RAdam, {}),
    "rmsprop": (optimizers.RMSProp, {}),
    "rmsprop_rates": (optimizers.RMSProp, {"accumulate": "rates"}),
    "rprop": (optimizers.Rprop, {}),
    "sgd": (optimizers.SGD, {}),
    "yogi": (optimizers.Yogi, {}),
}

# Those that have forms for arrays of 16 bits, too: all of them, rounded stochastically, with a seed as the last argument.
NARROW = ("sgd", "momentum", "adam", "adamw")

SUFFIXES = {
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
    np.dtype(np.uint16): "bf16",
    np.dtype(np.float16): "f16",
}
STATUS = {
    "FASTOPT_OK": (0, "the step was taken"),
    "FASTOPT_BAD_SIZE": (1, "elements is negative, or too large for any memory"),
    "FASTOPT_NULL": (2, "a pointer is NULL, and elements is not 0"),
    "FASTOPT_MISALIGNED": (3, "a pointer is not aligned to its type"),
    "FASTOPT_OVERLAP": (4, "two of the arrays overlap"),
    "FASTOPT_BAD_NUMBER": (
        5,
        "t is less than 1, or a number is not allowed, or not in the arrays' type",
    ),
}


class Condition(NamedTuple):
    """What some of a function's numbers must be: the check of a hyper-parameter in Python, with its words."""

    names: tuple[str, ...]
    holds: Callable[..., bool]
    words: str


# What all functions take last, with the values that change nothing.
COMMON: dict[str, float] = {"scale": 1.0, "lower": -math.inf, "upper": math.inf}
BOUNDS = ("lower", "upper")
COMMON_CONDITIONS = (
    Condition(("scale",), finite.holds, finite.words),
    Condition(BOUNDS, lambda lower, upper: lower <= upper, "in this order"),
)


class Function(NamedTuple):
    """A function of the interface.

    Attributes
    ----------
    name : str
        Such as ``fastopt_adam_f32``.
    dtype : dtype
        Of the arrays; uint16 stands for bfloat16.
    rule : callable
        The rule that it runs.
    states : dict of str to float
        Names of the state arrays, and what they hold before the first step.
    numbers : dict of str to float
        Names of the numbers after ``lr``, with the defaults of the optimizer; last `COMMON`.
    coefficients : tuple of str, or Branch
        What the rule takes, as expressions in ``t`` and the numbers.
    conditions : tuple of Condition
        What the numbers must be.
    """

    name: str
    dtype: np.dtype[Any]
    rule: Rule
    states: Mapping[str, float]
    numbers: Mapping[str, float]
    coefficients: Tree
    conditions: tuple[Condition, ...]

    @property
    def is_narrow(self) -> bool:
        """Whether the arrays are of 16 bits."""
        return self.dtype in FORMATS

    @property
    def arrays(self) -> list[str]:
        """The names of its pointers."""
        return ["theta", "g", *self.states]


def address(name: str, dtype: DTypeLike = np.float64) -> int:
    """The address of a function, to be called by compiled code in this process.

    Parameters
    ----------
    name : str
        One of `FUNCTIONS`, such as ``"adam"``.
    dtype : float32 or float64, default float64
        Of the arrays; those of `NARROW` also float16, bfloat16, or uint16 for its bits.

    Returns
    -------
    int
        It stays valid as long as the process runs.

    Raises
    ------
    TypeError, ValueError
        If there is no such function, or the dtype is another one.
    RuntimeError
        If Numba's compiler is switched off.

    Examples
    --------
    >>> import ctypes, fastopt.capi, numpy as np
    >>> arrays, numbers = [ctypes.c_void_p] * 2, [ctypes.c_double] * 4
    >>> arguments = [ctypes.c_int64, *arrays, ctypes.c_int64, *numbers]
    >>> kind = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)
    >>> sgd = kind(fastopt.capi.address("sgd"))
    >>> theta, g = np.zeros(3), np.ones(3)
    >>> sgd(3, theta.ctypes.data, g.ctypes.data, 1, 0.5, 1.0, -np.inf, np.inf), theta
    (0, array([-0.5, -0.5, -0.5]))
    """
    made = function(name, dtype)
    with global_compiler_lock:  # threads that come at once compile it once, and a fork waits (see `runtime`)
        return int(_compiled(name, made.dtype).address)


def require_compiler() -> None:
    """Raise RuntimeError if Numba's compiler is switched off."""
    if numba.config.DISABLE_JIT:
        raise RuntimeError("functions for C are compiled by Numba, but NUMBA_DISABLE_JIT switches its compiler off")


def function(name: str, dtype: DTypeLike = np.float64) -> Function:
    """What a function is made of; see `address` for the parameters and errors."""
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise ValueError(f"name must be one of {', '.join(FUNCTIONS)}, got {name!r}")
    return _function(name, plain(one_of("dtype", dtype, dtypes_of(name))))


def dtypes_of(name: str) -> tuple[np.dtype[Any], ...]:
    """Which arrays there is a function for."""
    return REAL if name in NARROW else FLOATS


@functools.cache
def _function(name: str, dtype: np.dtype[Any]) -> Function:
    cls, arguments = FUNCTIONS[name]
    narrow: dict[str, Any] = {"state_dtype": FORMATS[dtype].name} if dtype in FORMATS else {}
    optimizer = cls(np.zeros(1, dtype), bounds=(0.0, 1.0), **arguments, **narrow)
    (group,) = optimizer.param_groups
    group.scale_if(True)
    hyper, defaults = _named_numbers(group.hyper, fixed=["dampening"] if group.hyper.get("nesterov") else [])
    own = _formulas(optimizer, hyper, [*defaults, "t"])
    around = (*(c if isinstance(c, str) else repr(c) for c in group.wrapped.names), "scale")
    tree = _completed(own, len(optimizer.coefficients(group.current, 1)), around)
    used = {key: value for key, value in defaults.items() if key != "lr" and re.search(rf"\b{key}\b", repr(tree))}
    states = {state: float(np.ravel(optimizer.state[state])[0]) for state in group.state_names}
    conditions = (*_conditions(cls.checks, group.hyper, {"lr", *used}), *COMMON_CONDITIONS)
    return Function(f"fastopt_{name}_{SUFFIXES[dtype]}", dtype, group.rule, states, used | COMMON, tree, conditions)


def _formulas(optimizer: Optimizer, hyper: Mapping[str, Any], numbers: Sequence[str]) -> Tree:
    """How the coefficients are computed from numbers with these names."""
    function: Any = optimizer.decide(hyper)
    if function is None:
        return traced(type(optimizer).coefficients, optimizer, hyper, "t", numbers=numbers)  # type: ignore[arg-type]
    return traced(function, "t", *optimizer.decision_numbers(hyper), numbers=numbers)


def _conditions(checks: Mapping[str, Check], hyper: Mapping[str, Any], used: set[str]) -> Iterator[Condition]:
    """What Python asks of the numbers that a function takes."""
    for key, value in hyper.items():
        check, names = checks.get(key, finite), _names(key, value)
        if isinstance(check, Number) and key in used:
            yield Condition(names, check.holds, check.words)
        if isinstance(check, Several) and used.issuperset(names):
            yield from (Condition((name,), check.each.holds, check.each.words) for name in names)
            if check.holds is not None:
                yield Condition(names, check.holds, check.words)


def _names(key: str, value: Any) -> tuple[str, ...]:
    """What the numbers of a hyper-parameter are called: ``beta1`` and ``beta2`` those of ``betas``."""
    return tuple(f"{key.removesuffix('s')}{i}" for i in range(1, len(value) + 1)) if isinstance(value, tuple) else (key,)


def _named_numbers(hyper: Mapping[str, Any], fixed: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Hyper-parameters with names in place of numbers, and the numbers by these names: ``beta1`` and ``beta2`` of ``betas``."""
    named: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    for key, value in hyper.items():
        several = dict(zip(_names(key, value), value, strict=True)) if isinstance(value, tuple) else {}
        one = {key: value} if isinstance(value, float) and key not in fixed else {}
        numbers |= several | one
        named[key] = tuple(several) if several else key if one else value
    return named, numbers


def _completed(tree: Tree, count: int, around: tuple[str, ...]) -> Tree:
    """The ways that give as many coefficients as the rule takes, and those of the options around it."""
    if not isinstance(tree, Branch):
        return (*tree, *around)
    ways = [way for way in tree[1:] if any(len(leaf) == count for leaf in _leaves(way))]
    if len(ways) == 1:
        return _completed(ways[0], count, around)
    return Branch(tree.condition, *(_completed(way, count, around) for way in ways))


def _leaves(tree: Tree) -> Iterator[tuple[str, ...]]:
    if isinstance(tree, Branch):
        yield from _leaves(tree.if_true)
        yield from _leaves(tree.if_false)
    else:
        yield tree


@jitable
def _stays(number: Any, rounded: Any) -> Any:
    """Whether a number is still one in the dtype of the arrays: neither zero that was none, nor infinite that was finite."""
    return (rounded != 0 or number == 0) and abs(rounded) < math.inf


def _source(made: Function) -> str:
    """The function in Python, as Numba compiles it. Pointers come as integers, for only those can be looked at."""
    arrays, numbers = made.arrays, ["lr", *made.numbers]
    width = made.dtype.itemsize
    pairs = [(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :]]
    overlaps = " or ".join(f"({a} < {b} + bytes and {b} < {a} + bytes)" for a, b in pairs)
    holds = [f"holds{i}({', '.join(condition.names)})" for i, condition in enumerate(made.conditions)]
    holds += [f"stays({x}, number({x}))" for x in numbers if x not in BOUNDS]
    lines = [
        f"def entry(elements, {', '.join(arrays)}, t, {', '.join(numbers)}{', seed' if made.is_narrow else ''}):",
        f"    if elements < 0 or elements > {2**60 // width}:",
        "        return 1",
        f"    if elements > 0 and ({' or '.join(f'{a} == 0' for a in arrays)}):",
        "        return 2",
        f"    if ({' | '.join(arrays)}) & {width - 1}:",
        "        return 3",
        f"    bytes = elements * {width}",
        f"    if {overlaps}:",
        "        return 4",
        f"    if t < 1 or not ({' and '.join(holds)}):",
        "        return 5",
        *(["    source = key_of(seed, t - 1), uint32(0)"] if made.is_narrow else []),
        "    t = float(t)",
        *_lines(made.coefficients, "    "),
        f"    updated = ({', '.join(f'array_at({a}, elements, updated_kind)' for a in arrays if a != 'g')},)",
        "    gradient = array_at(g, elements, gradient_kind)",
        f"    span(rule, number, updated, gradient, lr, coefficients, 0, elements{', source' if made.is_narrow else ''})",
        "    return 0",
    ]
    return "\n".join(lines) + "\n"


def _lines(tree: Tree, indent: str) -> Iterator[str]:
    if not isinstance(tree, Branch):
        yield f"{indent}coefficients = ({''.join(f'{c}, ' for c in tree)})"
        return
    yield f"{indent}if {tree.condition}:"
    yield from _lines(tree.if_true, indent + "    ")
    yield f"{indent}else:"
    yield from _lines(tree.if_false, indent + "    ")


@functools.cache
def _compiled(name: str, dtype: np.dtype[Any], is_cached: bool = True) -> Any:
    """The function as Numba has compiled it for C, or as it was found in the cache."""
    require_compiler()
    made = _function(name, dtype)
    source = _source(made)
    names: dict[str, Any] = {"__name__": __name__, "array_at": array_at, "key_of": key_of, "math": math}
    names |= {"number": computing(made.dtype).type, "uint32": types.uint32}
    names |= {"gradient_kind": kind_of(made.dtype), "updated_kind": kind_of(made.dtype, made.is_narrow)}
    names |= {"rule": made.rule, "span": span, "stays": _stays}
    names |= {f"holds{i}": jitable(condition.holds) for i, condition in enumerate(made.conditions)}
    file = f"<{made.name}>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file  # where Numba and tracebacks look for it
    exec(compile(source, file, "exec"), names)
    numbers = [types.float64] * (1 + len(made.numbers))
    seed = [types.int64] * made.is_narrow
    signature = types.int32(types.int64, *[types.int64] * len(made.arrays), types.int64, *numbers, *seed)
    entry: Any = names["entry"]
    entry.__qualname__ = f"{made.name}_{digest(entry)}"
    return compiled_callback(entry, signature, is_cached)


def exported(name: str, dtype: np.dtype[Any]) -> str:
    """The compiled function as LLVM's code, for C under its own name, and without what Numba keeps in it for Python."""
    made = _function(name, dtype)
    kinds = ["i64"] * (2 + len(made.arrays)) + ["double"] * (1 + len(made.numbers)) + ["i64"] * made.is_narrow
    return _for_c(_compiled(name, dtype, is_cached=False), made.name, kinds)


def norm_name(dtype: np.dtype[Any]) -> str:
    """What the function for norms is called."""
    return f"fastopt_norm_{SUFFIXES[dtype]}"


def exported_norm(dtype: np.dtype[Any]) -> str:
    """The same of the function for norms."""
    return _for_c(compiled_norm(dtype), norm_name(dtype), ["i64"] * 3)


def _for_c(compiled: Any, name: str, kinds: Sequence[str]) -> str:
    inner, code = compiled.native_name.removeprefix("cfunc."), str(compiled.inspect_llvm())
    # Pointers have types before LLVM 17.
    of_result, of_exception, *_ = [str(each.type) for each in llvm.parse_assembly(code).get_function(inner).arguments]
    arguments = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    wrapper = f"""
define i32 @{name}({arguments}) {{
  %result = alloca i32
  %exception = alloca {of_exception.removesuffix("*")}
  %ignored = call i32 @{inner}({of_result} %result, {of_exception} %exception, {arguments})
  %status = load i32, {of_result} %result
  ret i32 %status
}}
"""
    return code + wrapper
