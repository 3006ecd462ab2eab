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

# Of parameters with the gradients of only some rows: which.
Rows = Mapping[Parameter, NDArray[Any]]
ALL: Rows = {}


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


def look_again(plan: Plan, groups: Sequence[Group], vectors: Vectors, scale: float, rows: Rows = ALL) -> float:
    """Limit the norms of a plan by what NumPy finds; the norm of all gradients."""
    for i, (group, work) in enumerate(zip(groups, plan.works, strict=True)):
        totals = plan.totals_of_parameters("squares", work)
        plan.norms[i] = math.hypot(*(_norm(p, seen, float(totals[p])) for p, seen in _seen(group, vectors, scale, rows)))
    plan.norm[0] = limited_norm(plan.norms, plan.limits, plan.factors)
    return float(plan.norm[0])


def first_nonfinite(groups: Sequence[Group], vectors: Vectors, scale: float, rows: Rows = ALL) -> str | None:
    """What to say of the first element that is not finite; a norm can be infinite without one."""
    for group in groups:
        for p, seen in _seen(group, vectors, scale, rows):
            wrong = np.flatnonzero(~np.isfinite(seen))
            if wrong.size:
                name, index = p.place(_element(p, int(wrong[0]), rows))
                return f"the gradient of {name} must be finite, got {seen.flat[wrong[0]]} at index {index}"
    return None


def _element(p: Parameter, i: int, rows: Rows) -> int:
    """Which element of theta is the one with this place among those that were seen."""
    if p not in rows:
        return i
    width: int = p.theta.size // p.shape[0]
    return int(rows[p][i // width]) * width + i % width


def _norm(p: Parameter, seen: NDArray[Any], total: float) -> float:
    if LEAST <= total <= LARGEST or p.dtype != np.float64:
        return math.sqrt(total) if total >= 0.0 else math.nan
    with np.errstate(all="ignore"):
        magnitudes = np.abs(seen)
        largest = float(magnitudes.max(initial=0.0))
        if largest in (0.0, math.inf) or math.isnan(largest):
            return largest
        return largest * math.sqrt(float(np.square(magnitudes / largest).sum()))


def _seen(group: Group, vectors: Vectors, scale: float, rows: Rows) -> Iterator[tuple[Parameter, NDArray[Any]]]:
    """The gradients as the rule will see them, but for the clipping; 0 where it sees none."""
    for p in (p for p in group.parameters if p in vectors):
        with np.errstate(all="ignore"):
            seen = decoded(vectors[p]).astype(p.dtype)
            if group.scales:
                seen *= seen.dtype.type(scale)
        if group.hyper["mask"] is not None:
            mask = p.elements["mask"]
            seen[~(mask.reshape(p.shape[0], -1)[rows[p]].reshape(-1) if p in rows else mask)] = 0.0
        yield p, seen
