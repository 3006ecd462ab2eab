"""The numbers that the passes of a step take: those of the optimizer, and of the options around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastopt.arrays import masters
from fastopt.description.recipe import Description
from fastopt.engine.compile import Rule
from fastopt.step.clipping import squares_pass
from fastopt.step.decided import Call, Decided, lengthening
from fastopt.step.groups import Group
from fastopt.step.passes import Coefficient, Pass, Stochastic
from fastopt.step.plan import Work


def work_of(description: Description, group: Group, has_norms: bool) -> Work:
    """What the next steps do with a group."""
    hyper, is_cautious, has_own = Noting(_hyper(description, group)), bool(group.hyper["cautious"]), description.per_tensor
    decided = of_measure = measure = None
    if group.measure is not None and not is_cautious:
        of_measure = _decided(description, hyper, description.decide_measure(hyper), moves=False)
        measure = _measure_pass(group, _measured(description, group, hyper, of_measure), has_own)
    if description.decides:
        decided = _decided(description, hyper, description.decide(hyper), 0 if measure is None else measure.products)
    own = _own(description, group, hyper, decided)
    require_numbers(own)
    if is_cautious:  # what is measured is the rule itself
        of_measure, measure = decided, _measure_pass(group, own, is_by_tensor=True)
    around, is_by_tensor = group.last_coefficients, has_own or is_cautious
    rounding = Stochastic(group.stochastic, group.counter, group.hyper.get("seed", 0))
    of_update = (group.rule, group.parameters, group.arrays, group.rate, own + around, is_by_tensor)
    of_rows = len(description.states_of_rows(group.hyper))
    update = Pass(*of_update, zeroes=group.zeroes, around=masters.around, stochastic=rounding, of_rows=of_rows)
    calls = []
    if decided is not None:
        calls.append(Call(decided, update, update.offset_of(0), decided.decision.sums == 0, has_own, has_own))
    if of_measure is not None and measure is not None:
        calls.append(Call(of_measure, measure, measure.offset_of(0), True, has_own, has_own))
    if is_cautious:
        offset = update.offset_of(len(own) + group.wrapped.names.index(1.0))
        lengthened = Decided(lengthening, group.sizes[:, None], scalars=0, sums=1)
        calls.append(Call(lengthened, update, offset, False, has_own_sums=True))
    squares = squares_pass(group) if has_norms else None
    numbers = (tuple(calls), decided, of_measure, hyper.rate_was_read)
    return Work(update, group.counter, measure, squares, group.scalar_memory, group.scales, *numbers)


def write(description: Description, group: Group, work: Work) -> None:
    """Let the next step take its numbers, but for those that compiled code computes."""
    hyper = _hyper(description, group)
    for decided in (work.decided, work.decided_measure):
        if decided is not None:
            decided.write(description.decision_numbers(hyper))
    own = _own(description, group, hyper, work.decided)
    work.update.write(group.rate, own + group.last_coefficients)
    if work.measure is not None:
        of_measure = own if group.hyper["cautious"] else _measured(description, group, hyper, work.decided_measure)
        work.measure.write(group.rate, group.measure_coefficients(of_measure) + group.scale_coefficient())


class Noting(Mapping[str, Any]):
    """Hyper-parameters that note whether somebody reads the learning rate."""

    def __init__(self, hyper: Mapping[str, Any]) -> None:
        self._hyper, self.rate_was_read = hyper, False

    def __getitem__(self, key: str) -> Any:
        self.rate_was_read |= key == "lr"
        return self._hyper[key]

    def __or__(self, others: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **others}

    def __iter__(self) -> Iterator[str]:
        return iter(self._hyper)

    def __len__(self) -> int:
        return len(self._hyper)


def _hyper(description: Description, group: Group) -> Mapping[str, Any]:
    """The hyper-parameters of the next step, and the running scalars as the step before left them."""
    return {**group.current, **group.running} if description.scalars else group.current


def _own(description: Description, group: Group, hyper: Mapping[str, Any], decided: Decided | None) -> tuple[Coefficient, ...]:
    """The coefficients of the optimizer's own rule, as far as Python knows them."""
    return _placeholders(decided) if description.decides else description.coefficients(hyper, group.step_count + 1)


def _measured(
    description: Description, group: Group, hyper: Mapping[str, Any], decided: Decided | None
) -> tuple[Coefficient, ...]:
    """Those of what the optimizer measures."""
    if description.decides_measure:
        return _placeholders(decided)
    return description.measure_coefficients(hyper, group.step_count + 1)


def _decided(
    description: Description, hyper: Mapping[str, Any], function: Rule | None, sums: int = 0, moves: bool = True
) -> Decided | None:
    if function is None:
        return None
    return Decided(function, description.decision_numbers(hyper), len(description.scalars), sums, moves)


def _placeholders(decided: Decided | None) -> tuple[Coefficient, ...]:
    return () if decided is None else decided.placeholders


def _measure_pass(group: Group, own: tuple[Coefficient, ...], is_by_tensor: bool) -> Pass:
    assert group.measure is not None
    coefficients = group.measure_coefficients(own) + group.scale_coefficient()
    of_measure = (group.measure, group.parameters, group.measured, group.rate, coefficients, is_by_tensor, group.measured_count)
    return Pass(*of_measure, around=masters.around_measure)


def require_numbers(coefficients: Any) -> None:
    """Raise TypeError unless the coefficients are numbers, or stand for some."""
    if not (isinstance(coefficients, tuple) and all(isinstance(c, (float, str)) for c in coefficients)):
        raise TypeError(f"coefficients must be a tuple of floats, got {coefficients!r}")
