"""The numbers that the passes of a step take: those of the optimizer, and of the options around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.description.recipe import Description
from fastopt.step.clipping import squares_pass
from fastopt.step.decided import Call, Decided, lengthening
from fastopt.step.groups import Group
from fastopt.step.passes import Coefficient, Pass
from fastopt.step.plan import Work


def work_of(description: Description, group: Group, has_norms: bool) -> Work:
    """What the next steps do with a group."""
    hyper, t = _hyper(description, group), group.step_count + 1
    is_cautious = bool(group.hyper["cautious"])
    is_by_tensor, measures = description.per_tensor or is_cautious, group.measure is not None
    measure = decided = None
    if measures and not is_cautious:
        own = description.measure_coefficients(hyper, t)
        measure = _measure_pass(group, own, is_by_tensor)
    if description.decides:
        sums = 0 if measure is None else measure.products
        decided = Decided(description.decide(hyper), description.decision_numbers(hyper), len(description.scalars), sums)
        coefficients: tuple[Coefficient, ...] = decided.placeholders
    else:
        coefficients = description.coefficients(hyper, t)
        require_numbers(coefficients)
    if is_cautious:  # what is measured is the rule itself
        measure = _measure_pass(group, coefficients, is_by_tensor)
    around = coefficients + group.last_coefficients
    update = Pass(group.rule, group.parameters, group.arrays, group.rate, around, is_by_tensor, zeroes=group.zeroes)
    calls = []
    if decided is not None:
        calls.append(Call(decided, update, update.offset_of(0), measure is None or is_cautious, *[description.per_tensor] * 2))
        if is_cautious and measure is not None:
            calls.append(Call(decided, measure, measure.offset_of(0)))
    if is_cautious:
        place = len(coefficients) + group.wrapped.names.index(1.0)
        calls.append(Call(Decided(lengthening, group.sizes[:, None], 0, 1), update, update.offset_of(place), False, True))
    squares = squares_pass(group) if has_norms else None
    return Work(update, group.counter, measure, squares, group.scalar_memory, group.scales, tuple(calls))


def write(description: Description, group: Group, work: Work) -> None:
    """Let the next step take its numbers, but for those that compiled code computes."""
    hyper, t = _hyper(description, group), group.step_count + 1
    if description.decides:
        decided = work.calls[0].decided
        decided.write(description.decision_numbers(hyper))
        coefficients: tuple[Coefficient, ...] = decided.placeholders
    else:
        coefficients = description.coefficients(hyper, t)
    work.update.write(group.rate, coefficients + group.last_coefficients)
    if work.measure is not None:
        of_measure = coefficients if group.hyper["cautious"] else description.measure_coefficients(hyper, t)
        work.measure.write(group.rate, group.measure_coefficients(of_measure) + group.scale_coefficient())


def _hyper(description: Description, group: Group) -> Mapping[str, Any]:
    """The hyper-parameters of the next step, and the running scalars as the step before left them."""
    return {**group.current, **group.running} if description.scalars else group.current


def _measure_pass(group: Group, own: tuple[Coefficient, ...], is_by_tensor: bool) -> Pass:
    assert group.measure is not None
    coefficients = group.measure_coefficients(own) + group.scale_coefficient()
    return Pass(group.measure, group.parameters, group.measured, group.rate, coefficients, is_by_tensor, group.measured_count)


def require_numbers(coefficients: Any) -> None:
    """Raise TypeError unless the coefficients are numbers, or stand for some."""
    if not (isinstance(coefficients, tuple) and all(isinstance(c, (float, str)) for c in coefficients)):
        raise TypeError(f"coefficients must be a tuple of floats, got {coefficients!r}")
