"""How steps are taken: the plan that is kept, the numbers that change, and what to do when something is out of the ordinary."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.description.hyperparameters import finite
from fastopt.description.recipe import Description
from fastopt.engine import steps
from fastopt.step import clipping, numbers
from fastopt.step.changes import Changes
from fastopt.step.groups import Group
from fastopt.step.missed_steps import MissedSteps
from fastopt.step.model import Model
from fastopt.step.passes import Pass
from fastopt.step.plan import ONE_AT_A_TIME, BusyError, Plan, Work
from fastopt.step.plans import RESTART, Dtypes, Plans, Run, Vectors

NO_NORM = -1.0

PassOf = Callable[[Group], Pass]

APART = (
    "this optimizer was loaded from a file that has each array as often as it was referred to, so its parameters are nobody "
    "else's, and stepping them changes no model; take them from opt.params, or give it the model's by opt.rebind(params)"
)


class Stepping:
    """Takes the steps of an optimizer.

    Parameters
    ----------
    model : Model
        What is stepped.
    changes : Changes
        What groups have noted.
    whole : dict
        The options that belong to no group, as they are at present: ``clip_norm`` and what else `Optimizer` takes.

    Attributes
    ----------
    counter, skipped, accumulated : ndarray of int64, shape (1,)
        How many steps were taken, and were skipped, and how many gradients wait to be taken.
    missed : MissedSteps
        What tables have missed of steps of some of their rows; until they have caught up, no whole step is taken.
    """

    def __init__(self, model: Model, changes: Changes, whole: dict[str, Any]) -> None:
        self._whole = whole
        self.counter, self.skipped, self.accumulated = (np.zeros(1, np.int64) for _ in range(3))
        self.missed = MissedSteps()
        self._count: Any = memoryview(self.counter)  # type: ignore[arg-type, unused-ignore]
        self._norm = np.full(1, NO_NORM)  # of the last step that computed it
        self._has_norms = self._is_scaling = False
        self._model, self._changes = model, changes
        self._busy: Any = memoryview(model.memory.busy)  # type: ignore[arg-type, unused-ignore]
        self._plans = Plans(model)
        self._of_norms: Plans | None = None
        self._works: list[tuple[Group, Work]] = []
        self._of_group: dict[int, tuple[Group, Work]] = {}  # by the group's place
        self._moving: dict[int, tuple[Group, Work]] = {}  # those whose numbers change in the next step
        self._scheduled: list[Scheduled] = []
        self._limits = np.zeros(1)
        self._phases = steps.UPDATE

    def take(self, description: Description, grads: Any, scale: float) -> None:
        """Take a step; see `Optimizer.step`."""
        ended = RESTART
        while ended == RESTART:
            count = self._count[0]
            if self.missed:
                self.missed.require_none()
            changes = self._changes
            if type(scale) is not float or scale != 1.0 or changes.any or self._scheduled:
                scale = self.prepare(description, scale)
            elif changes.rates:
                self._take_rates(description)
            # What nearly all steps are; whatever is out of the ordinary ends it before anything has changed.
            plan = self._plans.current
            if plan is not None:
                if self._moving:
                    self._write(description)
                found = grads if self._model.is_plain else self._model.collected(grads)
                ended = plan.run(plan.held(found) if plan.is_long else found, scale, count, self._phases)
                if ended == steps.DONE:
                    return
            is_unknown = ended == steps.UNKNOWN_GRADIENT
            run = functools.partial(self._run, description, grads, scale, count)
            ended = self._plans.run(grads, "grads", run, is_unknown)

    def take_vectors(self, description: Description, vectors: Vectors, scale: float, count: int) -> None:
        """Take a step with sums of so many gradients."""
        scale = scale / count if count > 1 else scale
        self._take_by(functools.partial(self._plans.run_vectors, vectors), description, vectors, scale)

    def telling_failure(self, description: Description) -> contextlib.AbstractContextManager[None]:
        """A ``with`` block of a step, whose exceptions concern all who take part in it: nobody else does."""
        return contextlib.nullcontext()

    def agree(self, description: Description) -> None:
        """Settle what all who take part exchange in a step: nothing."""

    def _take_by(self, run: Callable[[Run], int], description: Description, grads: Any, scale: float) -> None:
        """Take a step in as many calls as it needs."""
        ended = RESTART
        while ended == RESTART:
            count = self._count[0]
            self.missed.require_none()
            scale = self.prepare(description, scale)
            ended = run(functools.partial(self._run, description, grads, scale, count))

    def ready(self, description: Description, scale: float) -> tuple[list[tuple[Group, Work]], float]:
        """What steps do with each group, with the numbers of the next one; and the scale, checked."""
        scale = self.prepare(description, scale)
        self._write(description)
        return self._works, scale

    def options_of_plans(self) -> dict[str, Any]:
        """What plans take besides gradients and passes."""
        counts = {"step_count": self.counter, "accumulated": self.accumulated, "threads": self._whole["threads"]}
        return {**counts, "norm": self._norm, "finds_nonfinite": self._whole["nonfinite"] != "propagate"}

    def exchange(self, pass_of: PassOf, groups: Sequence[Group], counter: NDArray[Any]) -> Callable[[], int]:
        """What runs a pass that takes no gradient over some groups, and counts it."""
        plans = self._plans_of(pass_of, groups, counter)
        vectors = {p: p.formed(p.theta) for group in groups for p in group.parameters}
        return functools.partial(plans.run_vectors, vectors, lambda plan, found, token: plan.call(steps.UPDATE, token))

    @property
    def last_norm(self) -> float | None:
        """The norm of all gradients of the last step; None if no step computes it."""
        return float(self._norm[0]) if self.needs_norms() and not self._norm[0] < 0.0 else None

    @property
    def plan(self) -> Plan | None:
        """The plan of the last step, or of one under way."""
        return self._plans.current

    def prepare(self, description: Description, scale: float = 1.0) -> float:
        """Follow schedules and changes; the scale, checked."""
        self._require_turn()
        if (type(scale) is not float or scale != 1.0) and not self._model.is_plain_scale(scale):
            scale = self._model.range.kept("scale", finite("scale", scale))
        changes = self._changes
        if changes.of_plan:
            self._scheduled = _schedules(self._model)
        if self._scheduled:
            self._follow_schedules(self._scheduled)
        if scale != 1.0 and not self._is_scaling:
            self._is_scaling = True  # from now on
            changes.note_plan()
        if changes.any:
            self._take_note(description)
        elif changes.rates:
            self._take_rates(description)
        return scale

    def _take_note(self, description: Description) -> None:
        """Take note of what was changed since the last step."""
        changes = self._changes
        if changes.is_apart:
            changes.is_apart = False
            warnings.warn(APART, RuntimeWarning, stacklevel=5)
        if changes.of_plan:
            # A schedule may have brought others.
            known, self._scheduled = self._scheduled, _schedules(self._model)
            followed = {each.identity for each in known}
            self._follow_schedules([each for each in self._scheduled if each.identity not in followed])
            self._build_works(description)  # with all numbers as they are now
        else:
            self._take_numbers(description)
        if self._has_norms:
            self._write_limits()
        changes.clear()

    def _take_numbers(self, description: Description) -> None:
        """Let the next step take numbers that were changed since the last one."""
        self._take_rates(description)
        of_group = self._of_group
        for index in list(self._changes.groups):
            if index in of_group:  # which is not frozen
                numbers.write(description, *of_group[index])
                if not _lasts(description, of_group[index][0]):
                    self._moving[index] = of_group[index]

    def _take_rates(self, description: Description) -> None:
        """Let the next step take learning rates that were changed since the last one."""
        self._require_turn()
        rates, of_group = self._changes.rates, self._of_group
        for index in list(rates):  # which a signal handler that takes a step clears
            if index in of_group:
                group, work = of_group[index]
                if work.needs_rate:
                    numbers.write(description, group, work)
                else:
                    work.write_rate(group.current["lr"])
        rates.clear()

    def _require_turn(self) -> None:
        """Raise RuntimeError if another thread takes a step, of which these may be the numbers."""
        if self._busy[0]:
            raise BusyError(ONE_AT_A_TIME)

    def _follow_schedules(self, scheduled: Sequence[Scheduled]) -> None:
        """Call each schedule once, before all else, for it is the caller's code and may change anything."""
        count = self._count[0]
        for schedule, followers in scheduled:
            value = schedule(count)
            for group, key in followers:
                if group.schedules.get(key) is schedule:
                    group.follow(key, value, count)

    def reset(self) -> None:
        """Have states, scalars and counters as at the beginning."""
        self._model.reset_states()
        self.go_on(0, 0, {})

    def go_on(self, count: int, skipped: int, whole: Mapping[str, Any]) -> None:
        """Be as after so many steps, with these options of the whole and nothing accumulated."""
        self.counter[0], self.skipped[0], self.accumulated[0] = count, skipped, 0
        self._whole.update(whole)
        self._norm[0] = NO_NORM
        self._changes.note_plan()

    def settled(self, description: Description) -> Plan:
        """The plan for gradients of the dtypes that came last, with the numbers of the next step but for those from sums."""
        self.prepare(description)
        self._write(description)
        return self._plans.prepared()

    def compile(self, description: Description, dtypes: Dtypes) -> None:
        """Compile what the next step will run with gradients of these dtypes, or load it from the cache."""
        self.prepare(description)
        self._plans.of(dtypes).compile()

    def apart(self, pass_of: PassOf, groups: Sequence[Group], name: str, grads: Any) -> None:
        """Run a pass of its own over some groups, with what users hand over like gradients."""
        plans = self._plans_of(pass_of, groups)
        plans.run(grads, name, lambda plan, found, token: plan.call(steps.UPDATE, token, 1.0, found))

    def norm(self, description: Description, grads: Any) -> float:
        """The norm of all gradients, without a step."""
        return self._norms(grads)[-1]

    def _norms(self, grads: Any) -> list[float]:
        """The norms of the gradients of each group, and then that of all."""
        groups = self._model.active
        norms: list[float] = []

        def run(plan: Plan, found: Any, token: int) -> int:
            ended = plan.call(steps.SQUARES, token, 1.0, found)
            if ended == steps.OUT_OF_RANGE:
                clipping.look_again(plan, groups, self._model.vectors(grads, "grads"), 1.0)
                ended = steps.DONE
            norms[:] = [*plan.norms.tolist(), *plan.norm.tolist()]
            return ended if plan.is_last(token) else steps.INTERRUPTED  # by who asked for those of other gradients

        plans = self._of_norms
        if plans is None or self._changes.of_plan:
            plans = self._of_norms = self._plans_of(clipping.squares_pass, groups)
        plans.run(grads, "grads", run)
        return norms

    def _plans_of(self, pass_of: PassOf, groups: Sequence[Group], counter: NDArray[Any] | None = None) -> Plans:
        """Plans of a pass of its own over some groups, which count their calls."""
        counts = {"step_count": np.zeros(1, np.int64) if counter is None else counter, "threads": self._whole["threads"]}
        return Plans(self._model, functools.partial(_apart, self._model, pass_of, groups, counts))

    def _write(self, description: Description) -> None:
        """Let the next step take the numbers that change."""
        for group, work in self._moving.values():
            numbers.write(description, group, work)
        if description.may_become_steady:
            self._moving = {index: each for index, each in self._moving.items() if not _lasts(description, each[0])}

    def _run(self, description: Description, grads: Any, scale: float, count: int, plan: Plan, found: Any, token: int) -> int:
        """Take a step with a plan; `found` are the gradients, or None if the plan knows them."""
        self._write(description)
        ended = plan.call(self._phases, token, scale, found, count)
        if ended in (steps.NOT_FINITE, steps.OUT_OF_RANGE):
            vectors = grads if isinstance(grads, Vectors) else self._model.vectors(grads, "grads")
            if self.is_to_skip(plan, [group for group, _ in self._works], vectors, scale, ended):
                self._skip(vectors)
                return steps.DONE
            ended = plan.call(self._phases & ~steps.SQUARES, token, scale, None, count)
        return self.restarted(ended)

    def restarted(self, ended: int) -> int:
        """How a step ends: if a signal handler took one meanwhile, by beginning anew."""
        if ended != steps.INTERRUPTED:
            return ended
        self._changes.note_plan()  # for that may have been in the midst of what was prepared
        return RESTART

    def is_to_skip(
        self, plan: Plan, groups: Sequence[Group], vectors: Any, scale: float, ended: int, rows: clipping.Rows = clipping.ALL
    ) -> bool:
        """Whether a gradient is not finite and the step is to be skipped; else the norms are limited."""
        if ended == steps.OUT_OF_RANGE:
            clipping.look_again(plan, groups, vectors, scale, rows)
        if self._whole["nonfinite"] == "propagate" or math.isfinite(plan.norm[0]):
            return False
        message = clipping.first_nonfinite(groups, vectors, scale, rows)
        if message and self._whole["nonfinite"] == "raise":
            raise ValueError(message)
        return message is not None

    def _skip(self, vectors: Any) -> None:
        """Use up the gradients without a step."""
        for group, _ in self._works:
            for p in group.parameters if group.zeroes else []:
                vectors[p][...] = 0
        self.count_skipped()

    def count_skipped(self) -> None:
        """Count a step that was skipped."""
        self.accumulated[0] = 0
        self.skipped[0] += 1

    def forget_scale(self) -> None:
        """Let no rule take a scale of the gradient, until a step has one again."""
        self._is_scaling = False
        self._changes.note_plan()

    def _build_works(self, description: Description) -> None:
        active = self._model.active
        self._of_norms = None
        self._has_norms = self.needs_norms()
        clips = self._whole["clip_norm"] is not None
        for group in active:
            group.scale_if(self._is_scaling or clips or group.hyper["clip_norm"] is not None)
        self._works = [(group, numbers.work_of(description, group, self._has_norms)) for group in active]
        self._of_group = {group.index: (group, work) for group, work in self._works}
        # Steady numbers are those that the passes have from the beginning.
        self._moving = {index: each for index, each in self._of_group.items() if not _lasts(description, each[0])}
        self._limits = np.zeros(len(active) + 1)
        measures = any(work.measure is not None for _, work in self._works)
        self._phases = steps.BEGIN | steps.UPDATE
        self._phases |= (steps.SQUARES if self._has_norms else 0) | (steps.MEASURES | steps.DECIDE if measures else 0)
        options = {**self.options_of_plans(), "limits": self._limits}
        self._plans.renew(functools.partial(_built, self._model, [work for _, work in self._works], options))

    def needs_norms(self) -> bool:
        """Whether steps compute norms."""
        limits = [self._whole["clip_norm"], *(group.hyper["clip_norm"] for group in self._model.active)]
        return self._whole["nonfinite"] != "propagate" or any(limit is not None for limit in limits)

    def _write_limits(self) -> None:
        """Limit norms to what groups say now."""
        self.write_limits(self._limits, [group for group, _ in self._works])

    def write_limits(self, limits: NDArray[Any], groups: Sequence[Group]) -> None:
        """Write what the norm of each of these groups is limited to, and then that of all."""
        for i, limit in enumerate((*(group.current["clip_norm"] for group in groups), self._whole["clip_norm"])):
            limits[i] = math.inf if limit is None else limit


def _built(model: Model, works: Sequence[Work], options: Mapping[str, Any], dtypes: Dtypes) -> Plan:
    return Plan(model.parameters, works, model.memory, dtypes, is_lone=model.is_lone, **options)


def _apart(model: Model, pass_of: PassOf, groups: Sequence[Group], counts: Mapping[str, Any], dtypes: Dtypes) -> Plan:
    passes = map(pass_of, groups)
    works = [Work(each, np.zeros(1, np.int64), squares=each if each.products else None) for each in passes]
    return Plan(model.parameters, works, model.memory, dtypes, is_lone=model.is_lone, **counts)


def _lasts(description: Description, group: Group) -> bool:
    """Whether a group's numbers stay as they are; what a schedule changes is noted by the group."""
    return description.lasts(group.hyper, group.step_count + 1)


class Scheduled(NamedTuple):
    """A schedule, and the groups and their hyper-parameters that follow it."""

    schedule: Callable[[int], Any]
    followers: list[tuple[Group, str]]

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells it from others, as long as its objects live."""
        return id(self.schedule), *((id(group), key) for group, key in self.followers)


def _schedules(model: Model) -> list[Scheduled]:
    found: dict[int, Scheduled] = {}
    for group in model.groups:
        for key, schedule in group.schedules.items():
            found.setdefault(id(schedule), Scheduled(schedule, [])).followers.append((group, key))
    return [*found.values()]
