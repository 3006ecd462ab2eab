"""Formulas out of Python functions: run on numbers that remember how they were computed.

A comparison of such numbers has no answer yet. So the function is run once for each way that its comparisons can turn out, and
what comes out is a tree of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple


class Branch(NamedTuple):
    """What is computed depends on a condition, an expression in Python."""

    condition: str
    if_true: Tree
    if_false: Tree


# Expressions in Python, or a condition between such trees.
Tree = tuple[str, ...] | Branch


class Number:
    """A number that is not known yet.

    Parameters
    ----------
    expression : str
        How it is computed, in Python.
    path : list of bool
        How comparisons turn out, in the order in which they are made. Those that are not in it yet turn out True.
    conditions : list of str
        The comparisons that were made.
    """

    def __init__(self, expression: str, path: list[bool], conditions: list[str]) -> None:
        self.expression = expression
        self._path, self._conditions = path, conditions

    def _new(self, expression: str) -> Number:
        return Number(expression, self._path, self._conditions)

    def __bool__(self) -> bool:
        self._conditions.append(self.expression)
        if len(self._conditions) > len(self._path):
            self._path.append(True)
        return self._path[len(self._conditions) - 1]

    def __neg__(self) -> Number:
        return self._new(f"(-{self.expression})")


def _text(value: Any) -> str:
    if isinstance(value, Number):
        return value.expression
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return repr(float(value))


def _binary(form: str, reflected: bool = False) -> Callable[[Number, Any], Number]:
    def operation(self: Number, other: Any) -> Number:
        a, b = (_text(other), self.expression) if reflected else (self.expression, _text(other))
        return self._new(form.format(a, b))

    return operation


OPERATORS = {"add": "({} + {})", "sub": "({} - {})", "mul": "({} * {})", "truediv": "({} / {})", "pow": "math.pow({}, {})"}
COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

for _name, _form in OPERATORS.items():
    setattr(Number, f"__{_name}__", _binary(_form))
    setattr(Number, f"__r{_name}__", _binary(_form, reflected=True))
for _name, _sign in COMPARISONS.items():
    setattr(Number, f"__{_name}__", _binary(f"({{}} {_sign} {{}})"))


def _function(name: str) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        numbers = [argument for argument in arguments if isinstance(argument, Number)]
        if not numbers:
            return getattr(math, name)(*arguments)
        return numbers[0]._new(f"math.{name}({', '.join(map(_text, arguments))})")

    return function


MATH = SimpleNamespace(sqrt=_function("sqrt"), pow=_function("pow"), exp=_function("exp"), log=_function("log"), inf=math.inf)


def _with_formulas(function: FunctionType) -> FunctionType:
    """The same function, which computes with formulas, too, and so do the functions that it calls."""
    known = {**function.__globals__, "math": MATH}
    called = {name: known[name] for name in function.__code__.co_names if isinstance(known.get(name), FunctionType)}
    known |= {name: _with_formulas(other) for name, other in called.items()}
    return FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)


def traced(function: FunctionType, *arguments: Any, numbers: Sequence[str]) -> Tree:
    """Find out how a function computes a tuple of numbers.

    Parameters
    ----------
    function : function
        A Python function that computes with numbers, and with those functions of `math` that are in `MATH`.
    *arguments
        What it takes, where a ``str`` that is in `numbers` stands for a number that is not known yet; in mappings and
        tuples, too.
    numbers : sequence of str
        Their names.

    Returns
    -------
    tuple of str, or Branch

    Raises
    ------
    TypeError, ValueError, AttributeError
        If the function does something else with its numbers.
    """
    own = _with_formulas(function)

    def explore(path: list[bool]) -> Tree:
        conditions: list[str] = []
        taken = list(path)
        result = own(*(_with_numbers(argument, set(numbers), taken, conditions) for argument in arguments))
        leaf: Tree = tuple(map(_text, result))
        # The comparisons after those of the path all turned out True: for each there is another way.
        for i in reversed(range(len(path), len(conditions))):
            leaf = Branch(conditions[i], leaf, explore([*taken[:i], False]))
        return leaf

    return explore([])


def _with_numbers(value: Any, numbers: set[str], path: list[bool], conditions: list[str]) -> Any:
    if isinstance(value, str) and value in numbers:
        return Number(value, path, conditions)
    if isinstance(value, tuple):
        return tuple(_with_numbers(item, numbers, path, conditions) for item in value)
    if isinstance(value, Mapping):
        return {key: _with_numbers(item, numbers, path, conditions) for key, item in value.items()}
    return value
