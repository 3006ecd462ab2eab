"""Rules made of rules: what is done around any update, in the same pass and in the same registers.

Each function here takes a rule and gives a rule. What it needs besides comes after the rule's own coefficients, so that the
loop and the rules know nothing of it, and one that isn't used isn't there. The result runs wherever a rule runs, on whole
NumPy arrays too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from fastopt.engine.compile import Rule, rule


def _transform(make: Callable[[Rule], Rule]) -> Callable[[Rule], Rule]:
    """Let the same rule give the same object, with a name that tells what was done."""

    @functools.cache
    def transform(inner: Rule) -> Rule:
        outer = make(inner)
        outer.__name__ = outer.__qualname__ = f"{inner.__name__}_{make.__name__}"
        return rule(outer)

    return transform


def first(values: Any) -> Any:
    """The first value of a tuple, or the only one."""
    return values[0] if isinstance(values, tuple) else values


@overload(first, strict=False)
def _first(values: Any) -> Callable[..., Any]:
    return (lambda values: values[0]) if isinstance(values, types.BaseTuple) else lambda values: values


def select(mask: Any, new: Any, old: Any) -> Any:
    """The new values where the mask is true, else the old ones: one for each of the new, or one for all of them."""
    if not isinstance(new, tuple):
        return np.where(mask, new, first(old))
    olds = old if isinstance(old, tuple) else (old,) * len(new)
    return tuple(select(mask, n, o) for n, o in zip(new, olds, strict=False))


@overload(select, strict=False)
def _select(mask: Any, new: Any, old: Any) -> Callable[..., Any]:
    if not isinstance(new, types.BaseTuple):
        return lambda mask, new, old: new if mask else first(old)
    if len(new) == 0:
        return lambda mask, new, old: ()
    if isinstance(old, types.BaseTuple):
        return lambda mask, new, old: (select(mask, new[0], old[0]), *select(mask, new[1:], old[1:]))
    return lambda mask, new, old: (select(mask, new[0], old), *select(mask, new[1:], old))


def with_first(value: Any, values: Any) -> Any:
    """The same values with another first one."""
    return (value, *values[1:]) if isinstance(values, tuple) else value


@overload(with_first, strict=False)
def _with_first(value: Any, values: Any) -> Callable[..., Any]:
    if isinstance(values, types.BaseTuple):
        return lambda value, values: (value, *values[1:])
    return lambda value, values: value


@_transform
def ascending(inner: Rule) -> Rule:
    """Step up instead of down: the gradient's sign is changed before all else."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, -g, *rest)

    return outer


@_transform
def decaying(inner: Rule) -> Rule:
    """Coupled weight decay: the gradient of an L2 penalty. One more coefficient: the weight decay."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, g + rest[-1] * theta, *rest[:-1])

    return outer


@_transform
def shrinking(inner: Rule) -> Rule:
    """Decoupled weight decay (Loshchilov and Hutter, 2019): theta shrinks by lr times one more coefficient."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        return inner(theta - lr * rest[-1] * theta, g, lr, *rest[:-1])

    return outer


@_transform
def scaling(inner: Rule) -> Rule:
    """Multiply the gradient by one more coefficient."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, rest[-1] * g, *rest[:-1])

    return outer


@_transform
def clipping(inner: Rule) -> Rule:
    """Limit each element of the gradient to one more coefficient, and to its negative. NaN stays NaN."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, np.minimum(np.maximum(g, -rest[-1]), rest[-1]), *rest[:-1])

    return outer


@_transform
def thresholding(inner: Rule) -> Rule:
    """Soft-threshold the new theta at lr times l1, the proximal step of an L1 penalty. Two more coefficients: zero and l1."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest[:-2])
        least = lr * rest[-1]
        # What is cut off is all of a small theta, which leaves an exact zero; of two zeros of both signs it may be either.
        return with_first(first(new) - np.minimum(np.maximum(first(new), -least), least) + rest[-2], new)

    return outer


@_transform
def projecting(inner: Rule) -> Rule:
    """Project the new theta onto bounds. Three more coefficients: zero, and the lower and the upper bound."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest[:-3])
        # Where a bound is 0, theta may be either of both zeros: the sum is the positive one.
        return with_first(np.minimum(np.maximum(first(new), rest[-2]), rest[-1]) + rest[-3], new)

    return outer


@_transform
def cautious(inner: Rule) -> Rule:
    """Step only where the update goes against the gradient (Liang et al., 2024). Two more coefficients: zero, and a factor."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        new = inner(theta, g, *rest[:-2])
        update = theta - first(new)
        return with_first(theta - rest[-1] * select(update * g > rest[-2], update, rest[-2]), new)

    return outer


@_transform
def agreement(inner: Rule) -> Rule:
    """Measure how many elements `cautious` steps. Two more coefficients: zero and one."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        update = theta - first(inner(theta, g, *rest[:-2]))
        return ((select(update * g > rest[-2], rest[-1], rest[-2]), rest[-1]),)

    return outer


@_transform
def masked(inner: Rule) -> Rule:
    """Leave theta and states as they are where one more coefficient is false."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        return select(rest[-1], inner(theta, g, lr, *rest[:-1]), (theta, *rest))

    return outer


@_transform
def excluding(measure: Rule) -> Rule:
    """Measure only where the last of two more coefficients is true; the other one is zero."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        return select(rest[-1], measure(theta, g, lr, *rest[:-2]), rest[-2])

    return outer
