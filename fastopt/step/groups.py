"""A parameter group: arrays with hyper-parameters of their own, in PyTorch's form."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import array_of
from fastopt.arrays.layout import aligned_zeros, parts
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.arrays.per_element import checked_arrays, checked_bounds, checked_copies, is_tree, require_mask
from fastopt.arrays.tree import leaves, map_leaves, with_leaves
from fastopt.description.fields import REQUIRED, known_values
from fastopt.description.hyperparameters import checked, common_range, hint, is_choice
from fastopt.description.options import DEFAULTS, Wrapped
from fastopt.description.recipe import Choice, Description
from fastopt.engine.formats import encoded, storage_view
from fastopt.engine.pairs import paired_states
from fastopt.step.changes import Changes
from fastopt.step.scalars import Scalars, running_scalars

# Hyper-parameters that may be arrays, which each group checks against its parameters.
TREES = ("mask", "bounds", "copy_to")
ARRAYS = ("lr", *TREES)


class Group(MutableMapping[str, Any]):
    """``group["lr"] = 3e-4``: every assignment is checked at once, and the next step uses it.

    Parameters
    ----------
    index, names : int, sequence of str
        Its place among the groups, and how messages and state dicts call the parameters.
    params : ndarray, Flat, or list, tuple or dict of them, nested
        The arrays are held, not copied.
    hyper : mapping
        All hyper-parameters of the optimizer.
    description : Description
        What makes the optimizer what it is.
    memory : Memory
        What the optimizer writes to; the parameters are added.
    changes : Changes
        Where to note that something was changed.
    complex_mode : {"parts", "modulus"}
        How rules take complex numbers, see `Parameter`.
    state_names : collection of str, optional
        The states to have; by default those that the rule needs now.

    Attributes
    ----------
    parameters, range : list of Parameter, Range
        One for each leaf of `params`; what numbers must be within, to be some in the dtypes of all of them.
    hyper : dict
        The checked hyper-parameters; read it, but assign through the group.
    rule, option_coefficients, last_coefficients : callable, tuple, tuple
        The rule for `hyper`, with what the options do around it; what these take after the rule's own coefficients; and that
        with the scale of the gradient.
    wrapped : Wrapped
        How `rule` was made.
    schedules, current : dict
        The hyper-parameters that follow a schedule; all of them, with the numbers that schedules gave last in their place.
    measure : callable or None
        What is summed up over the elements before a step, with options around it.
    running, scalars : Scalars
        Running scalars, see `Optimizer.decide`; with `per_tensor` those of all tensors, and none.
    has_rates, rate : bool, float or None
        Whether the learning rate is an array; the rate as it is now if it is a number.
    scales : bool
        Whether the rule takes a scale of the gradient as its last coefficient, see `scale_if`.
    zeroes : bool
        Whether a step sets the gradient to zero.
    counter : ndarray of int64, shape (1,)
        Counts its steps.
    state_names : tuple of str
        The states that it has; the present rule may use fewer.
    """

    def __init__(
        self,
        index: int,
        names: Sequence[str],
        params: Any,
        hyper: Mapping[str, Any],
        description: Description,
        memory: Memory,
        changes: Changes,
        complex_mode: str,
        state_names: Collection[str] | None = None,
    ) -> None:
        self.params = map_leaves(lambda leaf: leaf, params)  # containers of its own: the caller's may change
        found = [leaf for _, leaf in leaves(params, "")]
        self.parameters = [Parameter(name, leaf, memory, complex_mode) for name, leaf in zip(names, found, strict=True)]
        self.range = common_range(p.theta.dtype for p in self.parameters)
        self.index, self._description, self._changes, self._memory = index, description, changes, memory
        self._checks = description.checks
        self.scales = False
        self.hyper: dict[str, Any] = {}
        self.current: dict[str, Any] = {}
        self._copies: Any = None
        self._placed: dict[str, Any] = {}
        known = known_values(type(description))
        self._take({k: (self.range.kept if v is known.get(k, REQUIRED) else self._checked)(k, v) for k, v in hyper.items()})
        self.state_names = needed_states(self.hyper, self._used) if state_names is None else tuple(state_names)
        self.counter = np.zeros(1, np.int64)
        self._count: Any = memoryview(self.counter)  # type: ignore[arg-type, unused-ignore]  # which is read in a third of the time
        for p in self.parameters:
            p.elements |= {name: aligned_zeros(p.theta.size, p.theta.dtype) for name in description.elements}
        self._make_scalars()

    @functools.cached_property
    def sizes(self) -> NDArray[Any]:
        """How many elements loops go over in each tensor, at least one: shape (tensors,)."""
        return np.maximum([size for p in self.parameters for size in p.tensor_sizes()], 1)

    def _make_scalars(self) -> None:
        """Give the group its running scalars, or each tensor its own."""
        first, tensors = self._description.scalars, [p.tensors for p in self.parameters]
        is_by_tensor = self._description.per_tensor
        self.scalar_memory = running_scalars(first, sum(tensors) if is_by_tensor else 1)
        self.running = Scalars(first, self.scalar_memory, is_single=not is_by_tensor)
        self.scalars = Scalars({}, self.scalar_memory, is_single=True) if is_by_tensor else self.running
        if is_by_tensor:
            ends = itertools.accumulate(tensors)
            for p, count, end in zip(self.parameters, tensors, ends, strict=True):
                p.scalars = Scalars(first, self.scalar_memory[:, end - count : end], is_single=False)

    def begin_anew(self) -> None:
        """Have taken no step."""
        self.counter[0] = 0
        for name, value in self._description.scalars.items():
            self.running[name] = value

    @property
    def step_count(self) -> int:
        """How many steps the group has taken."""
        return int(self._count[0])

    @step_count.setter
    def step_count(self, value: int) -> None:
        self.counter[0] = value

    def __getitem__(self, key: str) -> Any:
        return self.params_copy() if key == "params" else self.hyper[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.commit(self.check({key: value}))

    def update(self, *changes: Any, **more: Any) -> None:
        """Change several hyper-parameters at once: all of them, or none if one is not allowed."""
        self.commit(self.check(dict(*changes, **more)))

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{key!r} can be set, but not removed")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self.hyper

    def __len__(self) -> int:
        return 1 + len(self.hyper)

    def __repr__(self) -> str:
        hyper = ", ".join(
            f"{key}={'<array>' if key in ARRAYS and is_tree(value) else repr(value)}"
            for key, value in self.hyper.items()
            if not is_off(key, value)  # which goes without saying
        )
        count = len(self.parameters)
        size = sum(p.theta.size for p in self.parameters)
        return f"<{count} array{'' if count == 1 else 's'} of {size} elements, {hyper}>"

    def check(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The new values in their plain form, to be handed to `commit`; nothing is changed yet.

        Raises
        ------
        TypeError
            If the optimizer has no such hyper-parameter, or a value is of a wrong type.
        ValueError
            If a value is not allowed, or needs a state that was not chosen at construction.
        """
        for key in changes:
            if key not in self.hyper:
                what = f"{key!r}{hint(key, self.hyper)}"
                raise TypeError(f"there is no hyper-parameter {what}; this optimizer has {', '.join(self.hyper)}")
        given = {key: self._checked(key, value) for key, value in changes.items()}
        if self._is_rate(given):
            return given
        hyper = {**self.hyper, **given}
        rule, names = self._choose(hyper)
        if rule is self._chosen and "ema_decay" not in given:
            return given
        if missing := [name for name in needed_states(hyper, names) if name not in self.state_names]:
            values = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            raise ValueError(f"{values} needs the state {missing[0]!r}, which this optimizer was constructed without")
        return given

    def commit(self, changes: Mapping[str, Any]) -> None:
        """Take new values that `check` gave."""
        hyper = {**self.hyper, **changes}
        if self._is_rate(changes) and type(changes["lr"]) is type(self.hyper["lr"]) is float:
            self.hyper = hyper
            self._follow_rate({**self.current, **changes} if self.schedules else hyper)
            self._changes.note_rate(self.index)
            return
        if self._differs_in_numbers(hyper, changes):
            self.hyper = hyper
            self._follow_numbers(hyper)
            self._changes.note_numbers(self.index)
            return
        before = self._of_passes()
        has_other_copies = hyper["copy_to"] is not self.hyper["copy_to"]
        is_scheduled = any(map(callable, changes.values()))
        self._take(hyper)
        if has_other_copies:
            self.fill_copies()
        if has_other_copies or is_scheduled or self._of_passes() != before:
            self._changes.note_plan()
        else:
            self._changes.note_numbers(self.index)

    def _is_rate(self, changes: Mapping[str, Any]) -> bool:
        """Whether nothing but the rate changes, and may be an array: then neither the rule nor other numbers depend on it."""
        return len(changes) == 1 and "lr" in changes and self._description.takes_rates

    def _differs_in_numbers(self, hyper: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
        """Whether other hyper-parameters only give the same passes other numbers, as nearly all changes do."""
        if self.schedules or "clip_norm" in changes:
            return False
        for key, value in changes.items():
            if not _is_number(value, self.hyper[key]):
                return False
        return self._description.choose(hyper)[0] is self._chosen

    def _of_passes(self) -> tuple[Any, ...]:
        """All that tells which passes a step makes, and which arrays are read in them."""
        hyper = self.hyper
        kinds: list[type] = [type(c) for c in self.option_coefficients]
        arrays = [value if is_tree(value) else None for value in (hyper["lr"], hyper["mask"], *(hyper["bounds"] or ()))]
        own = self._description.decide(hyper), self._description.decide_measure(hyper)
        return self.rule, self.measure, own, kinds, [*map(id, arrays)], hyper["frozen"], hyper["clip_norm"], [*self.schedules]

    def scale_if(self, scales: bool) -> None:
        """Let the rule take a scale of the gradient from now on, or none."""
        if self.scales != scales:
            self.scales = scales
            self._wrap()
            self._changes.note_plan()

    def paired_states(self) -> frozenset[str]:
        """The states that are complex where rules take pairs."""
        starts = {name: [self._description.initial(name, self.hyper, p.theta) for p in self.parameters] for name in self._used}
        known = [name for name, values in starts.items() if any(map(np.ndim, values))]
        count = len(inspect.signature(self._chosen).parameters) - 3 - len(self._used)
        return paired_states(self._chosen, self._used, [AVERAGE, *known], count)

    def arrays(self, p: Parameter) -> list[NDArray[Any]]:
        """What the rule updates of a parameter: theta, the copy, the average, and the states that the optimizer's rule uses."""
        copies = [] if p.copy is None else [p.copy]
        averages = [p.states[AVERAGE]] if self.hyper["ema_decay"] is not None else []
        return [p.formed(vector) for vector in (p.theta, *copies, *averages, *(p.states[name] for name in self._used))]

    @property
    def measured_count(self) -> int:
        """How many arrays measures see."""
        return 1 + len(self._used)

    def measured(self, p: Parameter) -> list[NDArray[Any]]:
        """What measures see of a parameter: theta, and the states of the optimizer's own rule."""
        return [p.formed(vector) for vector in (p.theta, *(p.states[name] for name in self._used))]

    def _take(self, hyper: dict[str, Any]) -> None:
        self.hyper = hyper
        self.zeroes = hyper["zero_grad"]
        self._chosen, self._used = self._choose(hyper)
        self.schedules = {key: value for key, value in hyper.items() if callable(value)}
        self.current = hyper
        self.has_rates = is_tree(hyper["lr"])
        self._wrap()
        sides = hyper["bounds"] or (None, None)
        self._place("lr", hyper["lr"] if self.has_rates else None)
        self._place("mask", hyper["mask"])
        for name, side in zip(("lower", "upper"), sides, strict=True):
            self._place(name, side if is_tree(side) else None)
        if hyper["copy_to"] is not self._copies:
            self._copies = hyper["copy_to"]
            self._place_copies(self._copies, self._memory)

    def _wrap(self) -> None:
        """Make the rule and the measure with what the options do around them."""
        hyper, own = self.hyper, self._description.own_options
        self.wrapped = Wrapped(self._chosen, hyper, own, scales=self.scales)
        self.rule = self.wrapped.rule
        self.option_coefficients: tuple[Any, ...] = ()
        self._follow_numbers(self.current)
        # What an optimizer measures, or, if it is cautious, how far the update agrees with the gradient.
        measure = self._chosen if hyper["cautious"] else self._description.measure(hyper)
        self._wrapped_measure = None if measure is None else Wrapped(measure, hyper, own, True, self.scales)
        self.measure = None if self._wrapped_measure is None else self._wrapped_measure.rule

    def _place(self, name: str, tree: Any) -> None:
        """Give each parameter its array of a tree, as a vector."""
        if self._placed.get(name) is tree:
            return
        self._placed[name] = tree  # whose arrays the plan has by their addresses
        for p in self.parameters:
            p.elements.pop(name, None)
        if tree is not None:
            for p, (path, array) in zip(self.parameters, leaves(tree, name), strict=True):
                p.elements[name] = p.for_each_part(p.unwrap(path, array).reshape(-1, order=p.order))

    def _place_copies(self, tree: Any, memory: Memory) -> None:
        """Let steps write the parameters to these arrays, too."""
        for p in self.parameters:
            if p.copy is not None:
                memory.remove(p.copy)
                p.copy = None
        if tree is not None:
            for p, (name, leaf) in zip(self.parameters, leaves(tree, "copy_to"), strict=True):
                p.copy = storage_view(parts(np.asarray(array_of(leaf)).reshape(-1, order=p.order)))
                memory.add(name, p.copy)

    def fill_copies(self) -> None:
        """Bring the copies up to date."""
        for p in self.parameters:
            if p.copy is not None:
                p.copy[...] = encoded(p.theta, p.copy.dtype)

    def params_copy(self) -> Any:
        """The parameters in containers that the caller may change."""
        return map_leaves(lambda leaf: leaf, self.params)

    def state(self, name: str) -> Any:
        """A state nested as the parameters are, as views; None if the group hasn't got it."""
        if name not in self.state_names:
            return None
        return with_leaves(self.params, [p.view(p.states[name]) for p in self.parameters])

    def follow(self, key: str, value: Any, step: int) -> None:
        """Take what a schedule gave after ``step`` steps.

        Raises
        ------
        TypeError, ValueError
            If it is not allowed, or asks for another rule.
        """
        try:
            number = checked(self._checks, key, value, within=self.range)
        except (TypeError, ValueError):  # which is said again, with the schedule's name
            checked(self._checks, key, value, label=f"the schedule's {key}({step})", within=self.range)
            raise
        if value is None:
            raise TypeError(f"the schedule's {key}({step}) must be a real number, got None")
        if key == "lr" and self._description.takes_rates and self.current is not self.hyper:
            self.current["lr"] = number
            self._follow_rate(self.current)
            self._changes.note_rate(self.index)
            return
        current = {**self.current, key: number}
        if self._description.choose(current)[0] is not self._chosen:
            raise ValueError(f"the schedule's {key}({step}) = {value!r} needs another rule than the optimizer has")
        self._follow_numbers(current)
        self._changes.note_numbers(self.index)

    def _follow_rate(self, current: dict[str, Any]) -> None:
        self.current = current
        self.rate: float | None = None if self.has_rates else current["lr"]

    def _follow_numbers(self, current: dict[str, Any]) -> None:
        self._follow_rate(current)
        if self.wrapped.names:
            self.option_coefficients = self.wrapped.coefficients(current)
        self.last_coefficients = self.option_coefficients + self.scale_coefficient()

    def measure_coefficients(self, own: tuple[float | str, ...]) -> tuple[Any, ...]:
        """The coefficients of the measure: its own, and those of the options around it."""
        return own if self._wrapped_measure is None else own + self._wrapped_measure.coefficients(self.current)

    def scale_coefficient(self) -> tuple[float, ...]:
        """What the rule and the measure take last: where compiled code writes the scale of a step."""
        return (1.0,) if self.scales else ()

    def _choose(self, hyper: Mapping[str, Any]) -> Choice:
        description = self._description
        if hyper["cautious"] and description.measure(hyper) is not None:
            raise ValueError(
                f"cautious=True is not for {type(description).__name__}, whose step depends on norms of the whole update"
            )
        rule, names = description.choose(hyper)
        if AVERAGE in names:
            raise ValueError(
                f"{type(description).__name__} can't have a state {AVERAGE!r}: the average of the parameters has that name"
            )
        return rule, names

    def _checked(self, key: str, value: Any) -> Any:
        if type(value) is float and key not in TREES:
            return checked(self._checks, key, value, within=self.range)
        if key == "lr" and is_tree(value):
            if not self._description.takes_rates:
                raise TypeError(
                    f"lr must be a number or a schedule for {type(self._description).__name__}, got {type(value).__name__}"
                )
            return checked_arrays(self.parameters, self.params, key, value)
        if key == "mask":
            return None if value is None else checked_arrays(self.parameters, self.params, key, value, require_mask)
        if key == "bounds":
            return None if value is None else checked_bounds(self.parameters, self.params, value)
        if key == "copy_to":
            return None if value is None else checked_copies(self.parameters, self.params, self._memory, value)
        if callable(value) and not is_choice(self._checks, key):
            return value
        return checked(self._checks, key, value, within=self.range)


def _is_number(value: Any, own: Any) -> bool:
    """Whether a number takes the place of another one, and options that are on stay on."""
    if type(value) is tuple and type(own) is tuple:  # of decay rates, not of bounds, which may be arrays
        return all(type(each) is float for each in (*value, *own))
    return type(value) is float and type(own) is float and (value > 0.0) == (own > 0.0)


def needed_states(hyper: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The states of the optimizer's own rule, and what the options need."""
    return (AVERAGE, *names) if hyper["ema_decay"] is not None else tuple(names)


def is_off(key: str, value: Any) -> bool:
    """Whether a hyper-parameter is an option that does nothing."""
    return value is False or (key in DEFAULTS and not is_tree(value) and value == DEFAULTS[key])
