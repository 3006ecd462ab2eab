"""Norms where a sum of squares doesn't tell them, and gradients that are not finite.

A sum of squares in double precision is finite if all gradients are, and an infinite or a NaN element makes it infinite or NaN.
Only where squares of float64 leave the range of double precision does NumPy have a second look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import Parameter
from fastopt.engine.compile import part
from fastopt.engine.formats import decoded
from fastopt.engine.steps import LARGEST, LEAST, limited_norm
from fastopt.engine.transforms import excluding, scaling
from fastopt.step.groups import Group
from fastopt.step.passes import Pass
from fastopt.step.plan import Plan

Vectors = Mapping[Parameter, NDArray[Any]]


@part
def squares(theta: Any, g: Any, lr: Any) -> Any:
    """The square of the gradient, to be summed up."""
    return ((g, g),)


def squares_pass(group: Group) -> Pass:
    """What is summed up in a group: the gradient as the rule will see it, but for the clipping."""
    measure: Any = squares
    coefficients: tuple[Any, ...] = ()
    if group.hyper["mask"] is not None:
        measure, coefficients = excluding(measure), (0.0, "mask")
    if group.scales:
        measure, coefficients = scaling(measure), (*coefficients, *group.scale_coefficient())
    return Pass(measure, group.parameters, lambda p: [p.formed(p.theta)], 0.0, coefficients, measures=1)


def look_again(plan: Plan, groups: Sequence[Group], vectors: Vectors, scale: float) -> float:
    """Limit the norms of a plan by what NumPy finds; the norm of all gradients."""
    for i, (group, work) in enumerate(zip(groups, plan.works, strict=True)):
        totals = plan.totals_of_parameters("squares", work)
        plan.norms[i] = math.hypot(*(_norm(p, seen, float(totals[p])) for p, seen in _seen(group, vectors, scale)))
    plan.norm[0] = limited_norm(plan.norms, plan.limits, plan.factors)
    return float(plan.norm[0])


def first_nonfinite(groups: Sequence[Group], vectors: Vectors, scale: float) -> str | None:
    """What to say of the first element that is not finite; a norm can be infinite without one."""
    for group in groups:
        for p, seen in _seen(group, vectors, scale):
            wrong = np.flatnonzero(~np.isfinite(seen))
            if wrong.size:
                name, index = p.place(int(wrong[0]))
                return f"the gradient of {name} must be finite, got {seen.flat[wrong[0]]} at index {index}"
    return None


def _norm(p: Parameter, seen: NDArray[Any], total: float) -> float:
    if LEAST <= total <= LARGEST or p.dtype != np.float64:
        return math.sqrt(total) if total >= 0.0 else math.nan
    with np.errstate(all="ignore"):
        magnitudes = np.abs(seen)
        largest = float(magnitudes.max(initial=0.0))
        if largest in (0.0, math.inf) or math.isnan(largest):
            return largest
        return largest * math.sqrt(float(np.square(magnitudes / largest).sum()))


def _seen(group: Group, vectors: Vectors, scale: float) -> Iterator[tuple[Parameter, NDArray[Any]]]:
    """The gradients as the rule will see them, but for the clipping; 0 where it sees none."""
    for p in group.parameters:
        with np.errstate(all="ignore"):
            seen = decoded(vectors[p]).astype(p.dtype)
            if group.scales:
                seen *= seen.dtype.type(scale)
        if group.hyper["mask"] is not None:
            seen[~p.elements["mask"]] = 0.0
        yield p, seen
