"""A parameter group: arrays with hyper-parameters of their own, in PyTorch's form."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.arrays.codes import is_narrow
from fastopt.arrays.layout import aligned_zeros
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.arrays.per_element import checked_tree, fill_copies, is_tree, place, place_copies
from fastopt.arrays.rates import NewRates, new_rates
from fastopt.arrays.tree import leaves, map_leaves, with_leaves
from fastopt.description.fields import REQUIRED, known_values_within
from fastopt.description.hyperparameters import checked, common_range, hint, is_choice, plainly
from fastopt.description.options import Wrapped
from fastopt.description.recipe import Choice, Description
from fastopt.step.changes import Changes
from fastopt.step.comparing import is_number, is_off
from fastopt.step.scalars import scalars_of
from fastopt.step.states import FIXED, chosen, needed_states, paired, require_known

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
    has_rates, zeroes : bool
        Whether the learning rate is an array; whether a step sets the gradient to zero.
    is_plain_rate : callable
        Whether a number is a rate that needs no further look; never, where a rate can't be an array, as rules depend on it.
    scales : bool
        Whether the rule takes a scale of the gradient as its last coefficient, see `scale_if`.
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
        self.range = common_range(p.dtype for p in self.parameters)
        self.index, self._description, self._changes, self._memory = index, description, changes, memory
        self._checks, self.scales = description.checks, False
        self.is_plain_rate = plainly(description.checks["lr"] if description.takes_rates else None, self.range)
        self.hyper: dict[str, Any] = {}
        self.current: dict[str, Any] = {}
        self._placed: dict[str, Any] = {}
        cls: Any = type(description)
        known = known_values_within(cls, self.range)
        self._take({k: v if v is known.get(k, REQUIRED) else self._checked(k, v) for k, v in hyper.items()})
        needed = needed_states(self.hyper, self._used, self.parameters) if state_names is None else state_names
        self.state_names = tuple(needed)
        require_known(self.hyper, self.state_names, type(description).__name__)
        self.counter = np.zeros(1, np.int64)
        self._count: Any = memoryview(self.counter)  # type: ignore[arg-type, unused-ignore]  # which is read in a third of the time
        for p in self.parameters:
            p.elements |= {name: aligned_zeros(p.theta.size, p.dtype) for name in description.elements}
        self.scalar_memory, self.running, self.scalars = scalars_of(description, self.parameters)

    @functools.cached_property
    def sizes(self) -> NDArray[Any]:
        """How many elements loops go over in each tensor: shape (tensors,)."""
        return np.array([size for p in self.parameters for size in p.tensor_sizes()], np.float64)

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
        return iter(("params", *self.hyper))

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
        had = self.hyper["lr"] if self.has_rates and self._is_rate(changes) else None
        if had is not None and (rates := new_rates(self.parameters, self.params, had, changes["lr"])):
            return {"lr": rates}
        given = {key: self._checked(key, value) for key, value in changes.items()}
        if self._is_rate(given):
            return given
        if fixed := [key for key in FIXED if key in given and given[key] != self.hyper[key]]:
            raise ValueError(f"{fixed[0]} must stay as at construction, {self.hyper[fixed[0]]!r}, got {given[fixed[0]]!r}")
        hyper = {**self.hyper, **given}
        rule, names = self._choose(hyper)
        if rule is self._chosen and "ema_decay" not in given:
            return given
        if missing := [name for name in needed_states(hyper, names, self.parameters) if name not in self.state_names]:
            values = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            raise ValueError(f"{values} needs the state {missing[0]!r}, which this optimizer was constructed without")
        return given

    def commit(self, changes: Mapping[str, Any]) -> None:
        """Take new values that `check` gave."""
        if isinstance(rates := changes.get("lr"), NewRates):
            rates.write()
            return
        if self._is_rate(changes) and self.accepts_rate(changes["lr"]):
            self.take_rate(changes["lr"])
            return
        before, hyper = self.hyper, {**self.hyper, **changes}
        try:
            if self._differs_in_numbers(hyper, changes):
                self.hyper = hyper
                self._follow_numbers({**self.current, **changes} if self.schedules else hyper)
                self._changes.note_numbers(self.index)
                return
            self._take(hyper)
            if hyper["copy_to"] is not before["copy_to"]:
                self.fill_copies()
            self._changes.note_plan()
        except BaseException:  # an interrupt, or no memory
            self._take(before)
            self._changes.note_plan()
            raise

    def accepts_rate(self, value: Any) -> bool:
        """Whether a new learning rate is a number in the place of one, as nearly all are, and nothing needs to be looked at."""
        return type(self.hyper["lr"]) is float and self.is_plain_rate(value)

    def take_rate(self, value: float) -> None:
        """Take a learning rate that `accepts_rate` lets pass."""
        note = self._changes.note_rate
        note(self.index)  # first, for an exception may come up before the next line
        self.hyper["lr"] = self.current["lr"] = value
        note(self.index)  # again, for a signal handler may have taken a step before that

    def _is_rate(self, changes: Mapping[str, Any]) -> bool:
        """Whether nothing but the rate changes, and may be an array: then neither the rule nor other numbers depend on it."""
        return len(changes) == 1 and "lr" in changes and self._description.takes_rates

    def _differs_in_numbers(self, hyper: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
        """Whether other hyper-parameters only give the same passes other numbers, as nearly all changes do."""
        for key, value in changes.items():
            if not is_number(value, self.hyper[key]):
                return False
        return self._description.choose(hyper)[0] is self._chosen

    def scale_if(self, scales: bool) -> None:
        """Let the rule take a scale of the gradient from now on, or none."""
        if self.scales != scales or not self._is_wrapped:
            self.scales = scales
            self._wrap()
            self._changes.note_plan()

    def paired_states(self) -> frozenset[str]:
        """The states that are complex where rules take pairs."""
        return paired(self._description, self.hyper, (self._chosen, self._used), self.parameters)

    def arrays(self, p: Parameter) -> list[NDArray[Any]]:
        """What the rule updates of a parameter: theta, the copy, the average, and the states that the optimizer's rule uses."""
        copies = [] if p.copy is None else [p.copy]
        return [p.formed(vector) for vector in (*masters.vectors(p), *copies, *self._moved(p))]

    def stochastic(self, p: Parameter) -> list[bool]:
        """Which of these are rounded stochastically: those that go on from what they were."""
        of_theta = len(masters.vectors(p))
        goes_on = [of_theta == 1, *[False] * (of_theta - 1 + (p.copy is not None)), *[True] * len(self._moved(p))]
        is_on = self.hyper["rounding"] == "stochastic"
        return [is_on and moves and is_narrow(a) for moves, a in zip(goes_on, self.arrays(p), strict=True)]

    def _moved(self, p: Parameter) -> list[NDArray[Any]]:
        averages = [p.states[AVERAGE]] if self.hyper["ema_decay"] is not None else []
        return [*averages, *(p.states[name] for name in self._used)]

    @property
    def measured_count(self) -> int:
        """How many arrays measures see."""
        return 1 + len(self._used)

    def measured(self, p: Parameter) -> list[NDArray[Any]]:
        """What measures see of a parameter: theta, and the states of the optimizer's own rule."""
        return [p.formed(vector) for vector in (*masters.vectors(p, True), *(p.states[name] for name in self._used))]

    def _take(self, hyper: dict[str, Any]) -> None:
        self.hyper = hyper
        self.zeroes = hyper["zero_grad"]
        self._chosen, self._used = self._choose(hyper)
        self.schedules = {key: value for key, value in hyper.items() if callable(value)}
        self.current = {**hyper} if self.schedules else hyper
        self.has_rates = is_tree(hyper["lr"])
        self._wrap()
        lower, upper = (side if is_tree(side) else None for side in hyper["bounds"] or (None, None))
        rates = hyper["lr"] if self.has_rates else None
        for name, tree in {"lr": rates, "mask": hyper["mask"], "lower": lower, "upper": upper}.items():
            if tree is not self._placed.get(name):
                self._placed[name] = tree  # whose arrays the plan has by their addresses
                place(self.parameters, name, tree)
        if (copies := hyper["copy_to"]) is not self._placed.get("copy_to"):
            self._placed["copy_to"] = copies
            place_copies(self.parameters, copies, self._memory)

    def _wrap(self) -> None:
        """Make the rule and the measure with what the options do around them."""
        self._is_wrapped = False  # until all of it is done: an interrupt may come up, or memory end
        hyper, own = self.hyper, self._description.own_options
        self.wrapped = Wrapped(self._chosen, hyper, own, scales=self.scales)
        self.rule = self.wrapped.rule
        self.option_coefficients: tuple[Any, ...] = ()
        self._follow_numbers(self.current)
        # What an optimizer measures, or, if it is cautious, how far the update agrees with the gradient.
        measure = self._chosen if hyper["cautious"] else self._description.measure(hyper)
        self._wrapped_measure = None if measure is None else Wrapped(measure, hyper, own, True, self.scales)
        self.measure = None if self._wrapped_measure is None else self._wrapped_measure.rule
        self._is_wrapped = True

    def fill_copies(self) -> None:
        """Bring the copies up to date."""
        fill_copies(self.parameters)

    def params_copy(self) -> Any:
        """The parameters in containers that the caller may change."""
        return map_leaves(lambda leaf: leaf, self.params)

    def state(self, name: str) -> Any:
        """A state nested as the parameters are, as views; None if the group hasn't got it."""
        if name not in self.state_names:
            return None
        return with_leaves(self.params, [p.state_view(name) for p in self.parameters])

    def follow(self, key: str, value: Any, step: int) -> None:
        """Take what a schedule gave after ``step`` steps.

        Raises
        ------
        TypeError, ValueError
            If it is not allowed, or asks for another rule.
        """
        if key == "lr" and self.is_plain_rate(value):
            self._changes.note_rate(self.index)
            self.current["lr"] = value
            return
        try:
            number = checked(self._checks, key, value, within=self.range)
        except (TypeError, ValueError):  # which is said again, with the schedule's name
            checked(self._checks, key, value, label=f"the schedule's {key}({step})", within=self.range)
            raise
        if value is None:
            raise TypeError(f"the schedule's {key}({step}) must be a real number, got None")
        current = {**self.current, key: number}
        if self._description.choose(current)[0] is not self._chosen:
            raise ValueError(f"the schedule's {key}={value!r} after {step} steps needs another rule than the optimizer has")
        self._follow_numbers(current)
        self._changes.note_numbers(self.index)

    @property
    def rate(self) -> float | None:
        """The learning rate as it is now; None if it is an array."""
        return None if self.has_rates else self.current["lr"]

    def _follow_numbers(self, current: dict[str, Any]) -> None:
        self.current = current
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
        return chosen(self._description, hyper)

    def _checked(self, key: str, value: Any) -> Any:
        if type(value) is float and key not in TREES:
            return checked(self._checks, key, value, within=self.range)
        has_rates = key == "lr" and is_tree(value)
        if has_rates and not self._description.takes_rates:
            name = type(self._description).__name__
            raise TypeError(f"lr must be a number or a schedule for {name}, got {type(value).__name__}")
        if has_rates or key in TREES:
            return checked_tree(self.parameters, self.params, self._memory, key, value)
        if callable(value) and not is_choice(self._checks, key):
            return value
        return checked(self._checks, key, value, within=self.range)
