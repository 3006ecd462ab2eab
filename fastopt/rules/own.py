"""Optimizers from a user's own rule: the formula once, everything else from `Optimizer`."""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, overload

from numpy.typing import NDArray

from fastopt.description.fields import COMMON, REQUIRED
from fastopt.description.fields import hyper as field
from fastopt.description.hyperparameters import decay
from fastopt.engine.compile import Rule
from fastopt.engine.compile import rule as plain_rule
from fastopt.optimizer import Optimizer

CONSTANTS = {"zero": 0.0, "half": 0.5, "one": 1.0, "two": 2.0}

# Names that no hyper-parameter can have besides `lr`: of options, arguments of all rules, and attributes of classes.
RESERVED = {*Optimizer.common, *CONSTANTS, "g", "params", "rule", "state_names", "t", "theta", "nonnegative_states"} - {"lr"}

# Names that a rule may use for what follows from a hyper-parameter and the step.
DERIVED: Mapping[str, Callable[[float, int], float]] = {
    "one_minus_": lambda value, t: 1.0 - value,
    "debias_": lambda value, t: 1.0 / (1.0 - value**t),
    "debias_root_": lambda value, t: 1.0 / math.sqrt(1.0 - value**t),
}

Value = Callable[[Mapping[str, Any], int], Any]
Derive = Callable[[Mapping[str, Any], int], Mapping[str, float]]


class CustomOptimizer(Optimizer):
    """Base class of the optimizers that `rule` makes.

    Attributes
    ----------
    rule : callable
        The rule, for use in compiled code and on NumPy arrays.
    """

    rule: ClassVar[Rule]
    _starts: ClassVar[Mapping[str, float]]  # what the states hold at first
    _values: ClassVar[Mapping[str, Value]]  # of the arguments after the states
    _derive: ClassVar[Derive | None]

    if TYPE_CHECKING:  # which knows no hyper-parameters of a class that is made when the program runs

        def __init__(self, params: Any, *hyper: Any, **options: Any) -> None: ...

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        """As the decorator was told."""
        return self._starts[name]

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        """What the rule takes, by the names of its arguments."""
        derive = type(self)._derive
        if derive is None:
            return tuple([float(value(hyper, t)) for value in self._values.values()])
        own = derive(hyper, t)
        return tuple([float(own[name] if name in own else value(hyper, t)) for name, value in self._values.items()])


def _value(name: str, hyper: Mapping[str, Any]) -> Value:
    """How an argument of a rule is computed, by its name."""
    if name in hyper:
        return lambda hyper, t: hyper[name]
    if name in CONSTANTS:
        return lambda hyper, t: CONSTANTS[name]
    for prefix, derived in DERIVED.items():
        key = name.removeprefix(prefix)
        if key in hyper and name.startswith(prefix):
            return lambda hyper, t: derived(hyper[key], t)

    def missing(hyper: Mapping[str, Any], t: int) -> float:
        raise TypeError(f"coefficients gave no {name!r}")

    return missing


@overload
def rule(function: Rule) -> Rule: ...
@overload
def rule(
    *,
    state: str | Sequence[str] | Mapping[str, float] = ...,
    hyper: str | Sequence[str] | Mapping[str, Any] = ...,
    coefficients: Derive | None = ...,
    nonnegative: str | Sequence[str] = ...,
) -> Callable[[Rule], type[CustomOptimizer]]: ...
def rule(
    function: Rule | None = None,
    *,
    state: str | Sequence[str] | Mapping[str, float] = (),
    hyper: str | Sequence[str] | Mapping[str, Any] = "lr",
    coefficients: Derive | None = None,
    nonnegative: str | Sequence[str] = (),
) -> Any:
    r"""Make an optimizer from an update rule; without arguments, mark a function as the rule of a class of your own.

    The function says how one element is updated: ``function(theta, g, lr, *states, *others)`` returns the new theta, or a tuple
    of the new theta and the new states. All arguments are numbers of one floating dtype, and so must the results be: a literal
    number would be float64, and a branch would keep the loop out of vector registers. In place of ``x / 2`` take an
    argument ``half``, in place of ``if`` functions such as ``np.where``, ``np.maximum`` and ``np.sign``.

    Parameters
    ----------
    function : callable, optional
        Given when the decorator has no arguments: returned as it is, to be used in a subclass of `Optimizer`, in compiled code
        and on NumPy arrays.
    state : str, sequence of str, or mapping of str to float
        Names of the states, separated by blanks, in the order in which the function takes them after ``lr``; a mapping has
        their first values, else they start at 0.
    hyper : str, sequence of str, or mapping
        Names of the hyper-parameters, with or without defaults: ``"lr=1e-3 beta=0.9"`` or a mapping of names to defaults. They
        become arguments of the optimizer, in this order.
    coefficients : callable, optional
        ``coefficients(hyper, t)`` gives a mapping with more numbers for the function's arguments by name, in double precision,
        once a step; the first step is ``t = 1``.
    nonnegative : str or sequence of str, optional
        Names of the states that are never negative, such as averages of squares: with ``state_dtype="int8"`` they range further
        then, and never become zero.

    Returns
    -------
    callable or type
        A subclass of `Optimizer` of the function's name: ``optimizer(params, *hyper, **options)``, which has the function as
        ``rule``. It does all that other optimizers do.

    Raises
    ------
    TypeError, ValueError
        If the function branches, its arguments are not as said, or a name is unknown.

    Notes
    -----
    What the function takes after the states it gets by name: a hyper-parameter ``beta``; what follows from it, computed
    in double precision, ``one_minus_beta``, ``debias_beta`` for :math:`1 / (1 - \beta^t)`, ``debias_root_beta`` for
    :math:`1 / \sqrt{1 - \beta^t}`; the constants ``zero``, ``half``, ``one``, ``two``; or what `coefficients` gives.

    That the function returns another dtype or another number of values than it should is found at its first use, and raises
    `fastopt.RuleError`.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> @fastopt.rule(state="m", hyper="lr beta=0.9")
    ... def signum(theta, g, lr, m, beta, one_minus_beta):
    ...     m = beta * m + one_minus_beta * g
    ...     return theta - lr * np.sign(m), m
    >>> w = np.array([1.0, 2.0])
    >>> opt = signum(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([0.5, 2.5])
    """
    if function is not None:
        _require_function(function)
        return plain_rule(function)

    def decorate(function: Rule) -> type[CustomOptimizer]:
        return _optimizer(function, _states(state), _defaults(hyper), coefficients, _names("nonnegative", nonnegative))

    return decorate


def _optimizer(
    function: Rule,
    states: Mapping[str, float],
    hyper: Mapping[str, Any],
    derive: Derive | None,
    nonnegative: Sequence[str],
) -> type[CustomOptimizer]:
    others, name = _others(function, states, hyper, is_open=derive is not None), function.__name__
    if unknown := [state for state in nonnegative if state not in states]:
        raise ValueError(f"nonnegative must name states, {', '.join(states) or 'of which there are none'}, got {unknown[0]!r}")
    body = {
        **{key: field(value, decay if key.startswith("beta") and key not in COMMON else None) for key, value in hyper.items()},
        "__doc__": function.__doc__ or f"The optimizer with the rule ``{name}``.",
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "rule": plain_rule(function),
        "state_names": tuple(states),
        "nonnegative_states": tuple(nonnegative),
        "_starts": dict(states),
        "_values": {other: _value(other, hyper) for other in others},
        "_derive": None if derive is None else staticmethod(derive),
    }
    return type(name, (CustomOptimizer,), body)


def _others(function: Rule, states: Mapping[str, float], hyper: Mapping[str, Any], is_open: bool) -> list[str]:
    """What a rule takes after its states, of names that are known unless it is open to others; and no name means two things."""
    arguments, name = _arguments(function), function.__name__
    if arguments[:3] != ["theta", "g", "lr"]:
        raise TypeError(f"{name} must take theta, g and lr first, got {', '.join(arguments[:3])}")
    taken, others = arguments[3 : 3 + len(states)], arguments[3 + len(states) :]
    if taken != list(states):
        raise TypeError(f"{name} must take its states {', '.join(states)} after lr, got {', '.join(taken) or 'none'}")
    if "lr" not in hyper:
        raise TypeError(f"{name} must have the hyper-parameter lr, got {', '.join(hyper)}")
    if clash := [key for key in hyper if key in RESERVED or key in states]:
        raise ValueError(f"{name} can't have a hyper-parameter {clash[0]!r}: that name means something else already")
    known = {*hyper, *CONSTANTS, *(prefix + key for prefix in DERIVED for key in hyper)}
    if not is_open and (unknown := [argument for argument in others if argument not in known]):
        raise TypeError(
            f"{name} takes {unknown[0]!r}, which is neither a state ({', '.join(states) or 'there is none'}) "
            f"nor a hyper-parameter ({', '.join(hyper)}) nor one of {', '.join(sorted(known - set(hyper)))}; "
            "give it by coefficients="
        )
    return others


def _require_function(function: Any) -> None:
    """Raise TypeError unless it is a Python function without branches."""
    if not isinstance(function, FunctionType):
        raise TypeError(f"a rule must be a Python function, got {function!r}")
    if lines := sorted(set(_branches(function.__code__))):
        raise TypeError(
            f"the rule {function.__name__} branches in line {lines[0]}: if, while, for, and, or keep the loop out of vector "
            "registers; use np.where, np.maximum, np.minimum, np.sign or np.abs"
        )


def _branches(code: CodeType) -> Iterator[int]:
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction.starts_line if isinstance(instruction.starts_line, int) and instruction.starts_line > 1 else line
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            yield getattr(getattr(instruction, "positions", None), "lineno", None) or line


def _arguments(function: Rule) -> list[str]:
    _require_function(function)
    parameters = inspect.signature(function).parameters.values()
    if odd := [p.name for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]:
        raise TypeError(f"{function.__name__} must take its arguments by position, but takes {odd[0]!r} otherwise")
    if defaults := [p.name for p in parameters if p.default is not p.empty]:
        raise TypeError(f"{function.__name__} gives {defaults[0]!r} a default, which is never used; defaults belong to hyper=")
    return [p.name for p in parameters]


def _states(state: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(state, Mapping):
        return {name: float(value) for name, value in state.items()}
    return dict.fromkeys(_names("state", state), 0.0)


def _defaults(hyper: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters with their defaults."""
    if isinstance(hyper, Mapping):
        return dict(hyper)
    pairs = [item.partition("=") for item in _names("hyper", hyper)]
    return {name: float(value) if equals else REQUIRED for name, equals, value in pairs}


def _names(what: str, names: str | Sequence[str]) -> list[str]:
    found = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    for name in found:
        if not isinstance(name, str) or not name.partition("=")[0].isidentifier():
            raise ValueError(f"{what} must hold names, got {name!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"{what} has a name twice: {', '.join(found)}")
    return found
