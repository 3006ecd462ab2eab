"""Rules made of rules: what is done around any update, in the same pass and in the same registers.

Each function here takes a rule and gives a rule. What it needs besides comes after the rule's own coefficients, so that the
loop and the rules know nothing of it, and one that isn't used isn't there. The result runs wherever a rule runs, on whole
NumPy arrays too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fastopt.engine.compile import Rule, rule


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


def with_options(inner: Rule, hyper: Mapping[str, Any]) -> tuple[Rule, tuple[float, ...]]:
    """The rule with what some hyper-parameters ask for around it, and the coefficients that this takes after the rule's own."""
    coefficients: tuple[float, ...] = ()
    if (weight_decay := hyper.get("weight_decay", 0.0)) > 0.0:
        inner = shrinking(inner) if hyper.get("decoupled_weight_decay", False) else decaying(inner)
        coefficients = (weight_decay,)
    if hyper.get("maximize", False):
        inner = ascending(inner)
    return inner, coefficients
