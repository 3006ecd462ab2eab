"""Complex numbers as rules can take them: pairs of real and imaginary part, whose products are real.

The product of two pairs is their inner product, the real part of one times the conjugate of the other, so that ``g * g`` in a
rule is the squared modulus. Everything else is done to each part, but for ``np.abs``, which is the modulus. In compiled code a
pair is a type of two numbers, in Python the class `Pair` of two numbers or arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, make_attribute_wrapper, models, register_model
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastopt.engine.jitable import implementation_of


class Pair(NDArrayOperatorsMixin):
    """The two parts of complex numbers.

    Parameters
    ----------
    x, y : number or ndarray
        Real and imaginary parts.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any) -> Any:
        if ufunc is np.multiply and all(isinstance(value, Pair) for value in inputs):
            a, b = inputs
            return a.x * b.x + a.y * b.y
        if ufunc is np.absolute:
            return np.sqrt(self.x * self.x + self.y * self.y)
        return Pair(*(ufunc(*(getattr(value, part, value) for value in inputs)) for part in ("x", "y")))


def paired_states(rule: Callable[..., Any], states: Sequence[str], known: Sequence[str], coefficients: int) -> frozenset[str]:
    """Find the states that are pairs if theta and the gradient are: those that the rule makes pairs of.

    Parameters
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)``.
    states : sequence of str
        Their names.
    known : sequence of str
        Those that are pairs from the beginning.
    coefficients : int
        How many the rule takes.

    Returns
    -------
    frozenset of str
    """
    one = np.float64(1.0)
    pair = Pair(one, one)
    pairs = frozenset(known)
    while True:
        given = [pair if name in pairs else one for name in states]
        with np.errstate(all="ignore"):
            new = rule(pair, pair, one, *given, *[one] * coefficients)
        made = new[1:] if isinstance(new, tuple) else ()
        found = pairs | {name for name, value in zip(states, made, strict=False) if isinstance(value, Pair)}
        if found == pairs:
            return pairs
        pairs = found


class PairType(types.Type):  # type: ignore[misc]
    """A pair of numbers of one type."""

    def __init__(self, number: Any) -> None:
        self.number = number
        super().__init__(name=f"Pair({number})")


@register_model(PairType)
class _PairModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, pair: Any) -> None:
        super().__init__(manager, pair, [("x", pair.number), ("y", pair.number)])


make_attribute_wrapper(PairType, "x", "x")
make_attribute_wrapper(PairType, "y", "y")


@intrinsic
def pair(typing_context: Any, x: Any, y: Any) -> Any:
    """A pair of two numbers of one type (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        made.x, made.y = arguments
        return made._getvalue()

    return PairType(x)(x, y), generate


def pair_of(x: Any, y: Any) -> Any:
    """A pair of two numbers, or of two arrays."""
    return Pair(x, y)


@implementation_of(pair_of)
def _pair_of(x: Any, y: Any) -> Any:
    return lambda x, y: pair(x, y)


def parts_in_memory(number: Any) -> Any:
    """The record of a pair in memory. Of an array of records a loop knows where both parts lie, of a matrix it doesn't."""
    return numba.from_dtype(np.dtype([("x", str(number)), ("y", str(number))]))


def x_of(a: Any) -> Any:
    """The real part of a pair; a number itself (compiled code only)."""
    raise NotImplementedError("x_of exists in compiled code only")


def y_of(a: Any) -> Any:
    """The imaginary part of a pair; a number, which stands for both parts, itself (compiled code only)."""
    raise NotImplementedError("y_of exists in compiled code only")


@implementation_of(x_of)
def _x_of(a: Any) -> Any:
    return (lambda a: a.x) if isinstance(a, PairType) else lambda a: a


@implementation_of(y_of)
def _y_of(a: Any) -> Any:
    return (lambda a: a.y) if isinstance(a, PairType) else lambda a: a


def overload_for_parts(function: Any, arguments: int) -> None:
    """Let a function of one or two numbers take pairs in place of them, part by part, in compiled code."""

    def unary(a: Any) -> Any:
        if isinstance(a, PairType):
            return lambda a: pair(function(a.x), function(a.y))
        return None

    def binary(a: Any, b: Any) -> Any:
        if isinstance(a, PairType) or isinstance(b, PairType):
            return lambda a, b: pair(function(x_of(a), x_of(b)), function(y_of(a), y_of(b)))
        return None

    implementation_of(function)(unary if arguments == 1 else binary)


OF_ONE: tuple[Any, ...] = (operator.neg, np.sqrt, np.sign)
OF_TWO: tuple[Any, ...] = (operator.add, operator.sub, operator.truediv, operator.lt, operator.gt, np.maximum, np.minimum)

for _function in (*OF_ONE, *OF_TWO):
    overload_for_parts(_function, 1 if _function in OF_ONE else 2)


@implementation_of(operator.mul)
def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, PairType) and isinstance(b, PairType):
        return lambda a, b: a.x * b.x + a.y * b.y
    if isinstance(a, PairType):
        return lambda a, b: pair(a.x * b, a.y * b)
    if isinstance(b, PairType):
        return lambda a, b: pair(a * b.x, a * b.y)
    return None


@implementation_of(np.abs)
def _modulus(a: Any) -> Any:
    return (lambda a: np.sqrt(a.x * a.x + a.y * a.y)) if isinstance(a, PairType) else None
