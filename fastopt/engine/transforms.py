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

from fastopt.engine.compile import Rule, rule
from fastopt.engine.rounding import joined, lower_half, to_24_bits, upper_half
from fastopt.engine.values import (
    clipped,
    first,
    flushed,
    held,
    insert_second,
    select,
    soft_thresholded,
    with_first,
    zero_like,
)

PLACE = np.float32(256.0)  # of the last of the first 8 bits that bfloat16 lacks, in the last of all 16


def _transform(make: Callable[[Rule], Rule]) -> Callable[[Rule], Rule]:
    """Let the same rule give the same object, with a name that tells what was done."""

    @functools.cache
    def transform(inner: Rule) -> Rule:
        outer = make(inner)
        outer.__name__ = outer.__qualname__ = f"{inner.__name__}_{make.__name__}"
        return rule(outer)

    return transform


@_transform
def ascending(inner: Rule) -> Rule:
    """Step up instead of down: the gradient's sign is changed before all else."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, -g, *rest)

    return outer


@_transform
def decaying(inner: Rule) -> Rule:
    """Coupled weight decay: the gradient of an L2 penalty. One more coefficient."""

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
        return inner(theta, clipped(g, -rest[-1], rest[-1]), *rest[:-1])

    return outer


@_transform
def thresholding(inner: Rule) -> Rule:
    """Soft-threshold the new theta at lr times l1, the proximal step of an L1 penalty. One more coefficient: l1."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest[:-1])
        return with_first(soft_thresholded(first(new), lr * rest[-1]), new)

    return outer


@_transform
def projecting(inner: Rule) -> Rule:
    """Project the new theta onto bounds. Two more coefficients: the lower and the upper bound."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest[:-2])
        return with_first(clipped(first(new), rest[-2], rest[-1]), new)

    return outer


@_transform
def holding(inner: Rule) -> Rule:
    """Take the outward part of the gradient as 0 where a bound is active. Three more coefficients: zero, and both bounds."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        return inner(theta, held(theta, g, *rest[-3:]), *rest[:-3])

    return outer


@_transform
def cautious(inner: Rule) -> Rule:
    """Step only where the update goes against the gradient (Liang et al., 2024). Two more coefficients: zero, and a factor."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        new = inner(theta, g, *rest[:-2])
        update = theta - first(new)
        # Multiplied, as published, for zero times NaN is NaN: zero in place of the update would hide it.
        return with_first(theta - select(update * g > rest[-2], rest[-1], rest[-2]) * update, new)

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
def averaging(inner: Rule) -> Rule:
    """Average the new theta exponentially, in a state before all others. Three more coefficients: decay, one minus it, half."""

    def outer(theta: Any, g: Any, lr: Any, average: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest[:-3])
        change = first(new) - average
        # Not the weighted sum, whose weights are rounded and don't add up to one. From the nearer end, so that both are exact.
        return insert_second(select(rest[-2] < rest[-1], average + rest[-2] * change, first(new) - rest[-3] * change), new)

    return outer


@_transform
def flushing(inner: Rule) -> Rule:
    """Set to zero what is subnormal in the new states: each step would make it slow again."""

    def outer(theta: Any, g: Any, *rest: Any) -> Any:
        new = inner(theta, g, *rest)
        return with_first(first(new), flushed(new))

    return outer


@_transform
def copying(inner: Rule) -> Rule:
    """Write the new theta a second time, to an array that comes before all states."""

    def outer(theta: Any, g: Any, lr: Any, _: Any, *rest: Any) -> Any:
        new = inner(theta, g, lr, *rest)
        return insert_second(first(new), new)

    return outer


@_transform
def joining(inner: Rule) -> Rule:
    """Join a theta of bfloat16 with the bits that it lost, which come before all states, and take the new one apart again."""

    def outer(theta: Any, g: Any, lr: Any, lost: Any, *rest: Any) -> Any:
        new = inner(joined(theta, lost), g, lr, *rest)
        return insert_second(lower_half(first(new)), with_first(upper_half(first(new)), new))

    return outer


@_transform
def joining_8(inner: Rule) -> Rule:
    """The same with the first 8 of the bits that it lost: the new theta is rounded to these."""

    def outer(theta: Any, g: Any, lr: Any, lost: Any, *rest: Any) -> Any:
        new = inner(joined(theta, lost * PLACE), g, lr, *rest)
        kept = to_24_bits(first(new))
        return insert_second(lower_half(kept) / PLACE, with_first(upper_half(kept), new))

    return outer


@_transform
def joining_measure(measure: Rule) -> Rule:
    """Join a theta of bfloat16 with the bits that it lost, which come before all states."""

    def outer(theta: Any, g: Any, lr: Any, lost: Any, *rest: Any) -> Any:
        return measure(joined(theta, lost), g, lr, *rest)

    return outer


@_transform
def joining_measure_8(measure: Rule) -> Rule:
    """The same with 8 of the bits that it lost."""

    def outer(theta: Any, g: Any, lr: Any, lost: Any, *rest: Any) -> Any:
        return measure(joined(theta, lost * PLACE), g, lr, *rest)

    return outer


@_transform
def zeroing(inner: Rule) -> Rule:
    """Set the gradient to zero, which comes once more before all states: as an array that is written to."""

    def outer(theta: Any, _: Any, lr: Any, g: Any, *rest: Any) -> Any:
        return insert_second(zero_like(g), inner(theta, g, lr, *rest))

    return outer


@_transform
def excluding(measure: Rule) -> Rule:
    """Measure only where the last of two more coefficients is true; the other one is zero."""

    def outer(theta: Any, g: Any, lr: Any, *rest: Any) -> Any:
        return select(rest[-1], measure(theta, g, lr, *rest[:-2]), rest[-2])

    return outer
