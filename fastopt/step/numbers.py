"""The numbers that the passes of a step take: those of the optimizer, of its running scalars, and of the options around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.description.recipe import Description
from fastopt.step.clipping import squares_pass
from fastopt.step.groups import Group
from fastopt.step.passes import Coefficient, Pass, Stochastic
from fastopt.step.plan import Plan, Work

# Cautious steps are lengthened at most a thousandfold (Liang et al., 2024, in their code).
LEAST_AGREEMENT = 1e-3

Sums = Sequence[Any]


def work_of(description: Description, group: Group, has_norms: bool) -> Work:
    """What the next steps do with a group."""
    is_by_tensor = description.per_tensor or group.hyper["cautious"]
    zeroes, lr = group.zeroes, _rate(group)
    measure = None
    if group.measure is not None:
        coefficients = _measure_coefficients(description, group)
        of_measure = (group.measure, group.parameters, group.measured, lr, coefficients, is_by_tensor, group.measured_count)
        measure = Pass(*of_measure, around=masters.around_measure)
    # Of sums only their number and form counts here.
    products = 0 if measure is None or group.hyper["cautious"] else measure.products
    sums = [np.ones(len(measure.rows)) if measure and description.per_tensor else 1.0] * products
    agreeing = np.ones(1) if group.hyper["cautious"] else None
    coefficients, _ = _update_coefficients(description, group, sums, agreeing)
    require_numbers(coefficients)
    rounding = Stochastic(group.stochastic, group.counter, group.hyper.get("seed", 0))
    of_update = (group.rule, group.parameters, group.arrays, lr, coefficients, is_by_tensor)
    update = Pass(*of_update, zeroes=zeroes, around=masters.around, stochastic=rounding)
    squares = squares_pass(group) if has_norms else None
    return Work(update, group.counter, measure, squares, group.scalar_memory, group.scales)


def write(description: Description, group: Group, work: Work, sums: Sums = (), agreeing: NDArray[Any] | None = None) -> bool:
    """Let the next step take its numbers; whether all later ones take the same.

    Parameters
    ----------
    description : Description
    group : Group
    work : Work
        What a step does with the group.
    sums : sequence
        What the measure summed up.
    agreeing : ndarray, shape (tensors,), optional
        The share of elements of each tensor that a cautious step moves.
    """
    coefficients, lasts = _update_coefficients(description, group, sums, agreeing)
    work.update.write(_rate(group), coefficients)
    return lasts


def write_measure(description: Description, group: Group, work: Work) -> None:
    """Let the measure of the next step take its numbers."""
    if work.measure is not None:
        work.measure.write(_rate(group), _measure_coefficients(description, group))


def write_with_sums(description: Description, plan: Plan, works: Sequence[tuple[Group, Work]]) -> None:
    """Let the next step take numbers that follow from what was summed up."""
    with np.errstate(all="ignore"):  # gradients may be infinite or NaN, and so may be what follows from them
        totals = {group.index: plan.totals("measure", work) for group, work in works if work.measure is not None}
        own = [totals[group.index] for group, work in works if work.measure is not None and not group.hyper["cautious"]]
        over_all = tuple(_over_all(own)) if own and not description.per_tensor else ()
        for group, work in works:
            if group.hyper["cautious"]:
                write(description, group, work, (), totals[group.index][0] / group.sizes)
            elif work.measure is not None:
                write(description, group, work, tuple(totals[group.index]) if description.per_tensor else over_all)


def _over_all(sums: Sequence[NDArray[Any]]) -> list[float]:
    """Sums over the tensors of all groups."""
    joined = sums[0] if len(sums) == 1 else np.concatenate(sums, axis=1)
    totals: list[float] = (joined[:, 0] if joined.shape[1] == 1 else joined.sum(axis=1)).tolist()
    return totals


def _rate(group: Group) -> Any:
    """The rate, None if each element has its own."""
    return None if group.has_rates else group.current["lr"]


def _update_coefficients(
    description: Description, group: Group, sums: Sums, agreeing: NDArray[Any] | None
) -> tuple[tuple[Coefficient, ...], bool]:
    hyper, t = group.current, group.step_count + 1
    lasts = False
    if description.scalars:
        scalars = description.advance({**hyper, **group.running}, t, sums)
        group.running.prepare(scalars)
        hyper = {**hyper, **scalars}
    else:
        lasts = not group.schedules and agreeing is None and description.is_steady(group.hyper, t)
    coefficients = description.coefficients(hyper, t) + group.last_coefficients
    if agreeing is not None:
        caution = 1.0 / np.maximum(agreeing, LEAST_AGREEMENT)
        coefficients = tuple(caution if isinstance(c, str) and c == "caution" else c for c in coefficients)
    return coefficients, lasts


def _measure_coefficients(description: Description, group: Group) -> tuple[Coefficient, ...]:
    t, before = group.step_count + 1, {**group.current, **group.running}
    if group.hyper["cautious"]:  # the measure is the rule itself
        own = description.coefficients({**before, **description.advance(before, t, ())}, t)
    else:
        own = description.measure_coefficients(before, t)
    return group.measure_coefficients(own) + group.scale_coefficient()


def require_numbers(coefficients: Any) -> None:
    """Raise TypeError unless the coefficients are numbers, or stand for some."""
    if not (isinstance(coefficients, tuple) and all(isinstance(c, (float, str, np.ndarray)) for c in coefficients)):
        raise TypeError(f"coefficients must be a tuple of floats, got {coefficients!r}")
