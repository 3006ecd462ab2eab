"""A parameter group: arrays with hyper-parameters of their own, in PyTorch's form."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import aligned_zeros, parts
from fastopt.element_arrays import checked_arrays, checked_bounds, checked_copies, is_tree, require_mask
from fastopt.engine.compile import Rule
from fastopt.engine.formats import encoded, storage_view
from fastopt.engine.kernel import Kernel
from fastopt.engine.pairs import paired_states
from fastopt.flat import array_of
from fastopt.hyperparameters import checked, hint, is_choice
from fastopt.measuring import variant_of
from fastopt.memory import Memory
from fastopt.options import DEFAULTS, Wrapped
from fastopt.parameters import AVERAGE, Parameter
from fastopt.tree import leaves, map_leaves, with_leaves

if TYPE_CHECKING:
    from fastopt.assembly import Assembly

# Hyper-parameters that may be arrays, which each group checks against its parameters.
ARRAYS = ("lr", "mask", "bounds", "copy_to")

# The rule for some hyper-parameters, and the names of its states.
Choice = tuple[Rule, tuple[str, ...]]

# A callable that updates a parameter, and its arguments.
Launch = tuple[Callable[..., None], tuple[Any, ...]]


class Group(MutableMapping[str, Any]):
    """``group["lr"] = 3e-4``: every assignment is checked at once, and the next step uses it.

    Parameters
    ----------
    names : sequence of str
        How messages and state dicts call the parameters.
    params : ndarray, Flat, or list, tuple or dict of them, nested
        The arrays are held, not copied.
    hyper : mapping
        All hyper-parameters of the optimizer.
    optimizer : weakref.ref
        To the optimizer: a strong one would keep both, and all state, alive until Python looks for cycles.
    memory : Memory
        What the optimizer writes to; the parameters are added.
    complex_mode : {"parts", "modulus"}
        How rules take complex numbers, see `Parameter`.
    state_names : collection of str, optional
        The states to have; by default those that the rule needs now.

    Attributes
    ----------
    parameters : list of Parameter
        One for each leaf of `params`.
    hyper : dict
        The checked hyper-parameters; read it, but assign through the group.
    rule : callable
        The rule for `hyper`, with what the options do around it.
    option_coefficients : tuple
        What the options around the rule take, after the rule's own coefficients.
    wrapped : Wrapped
        How `rule` was made.
    schedules : dict of callable
        The hyper-parameters that follow a schedule.
    current : mapping
        The same as `hyper`, with the numbers that schedules gave last in their place.
    measure : callable or None
        What is summed up over the elements before a step, with what the options do around it.
    adapts : bool
        Whether steps depend on sums, scalars or arrays of the parameters, see `adapting`.
    scalars : dict of float
        Running scalars, see `Optimizer.advance`.
    scales : bool
        Whether the rule takes a scale of the gradient as its last coefficient, see `start_scaling`.
    scale : float
        That scale, in the step that is under way.
    zeroes : bool
        Whether a step sets the gradient to zero.
    step_count : int
        How many steps the group has taken.
    steady : tuple or None
        What the kernels take as coefficients in this step and all that follow, once that is known.
    state_names : tuple of str
        The states that it has; the present rule may use fewer.
    """

    def __init__(
        self,
        names: Sequence[str],
        params: Any,
        hyper: Mapping[str, Any],
        optimizer: weakref.ref[Assembly],
        memory: Memory,
        complex_mode: str,
        state_names: Collection[str] | None = None,
    ) -> None:
        self.params = map_leaves(lambda leaf: leaf, params)  # containers of its own: the caller's may change
        found = [leaf for _, leaf in leaves(params, "")]
        self.parameters = [Parameter(name, leaf, memory, complex_mode) for name, leaf in zip(names, found, strict=True)]
        self._optimizer = optimizer
        self._checks = self._owner.checks
        self._memory = memory
        self._count: int | None = None  # of the coefficients that the kernels take
        self.scales = False
        self.scale = 1.0
        self._copies: Any = None
        self._take({key: self._checked(key, value) for key, value in hyper.items()})
        self.state_names = needed_states(self.hyper, self._used) if state_names is None else tuple(state_names)
        self.step_count = 0
        self.steady: tuple[Any, ...] | None = None
        self.scalars: dict[str, Any] = {} if self._owner.per_tensor else dict(self._owner.scalars)
        for p in self.parameters:
            p.elements |= {name: aligned_zeros(p.theta.size, p.theta.dtype) for name in self._owner.elements}
            if self._owner.per_tensor:
                p.scalars = {name: np.full(p.tensors, value) for name, value in self._owner.scalars.items()}

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
        """All hyper-parameters as they will be after some changes; nothing is changed yet.

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
        hyper = self.hyper | {key: self._checked(key, value) for key, value in changes.items()}
        if missing := [name for name in needed_states(hyper, self._choose(hyper)[1]) if name not in self.state_names]:
            values = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            raise ValueError(f"{values} needs the state {missing[0]!r}, which this optimizer was constructed without")
        return hyper

    def commit(self, hyper: dict[str, Any]) -> None:
        """Take hyper-parameters that `check` gave."""
        before = self._of_kernels()
        has_other_copies = hyper["copy_to"] is not self.hyper["copy_to"]
        self._take(hyper)
        if has_other_copies or self._of_kernels() != before:
            self.use_states()
        if has_other_copies:
            self.fill_copies()
            self._owner._note_memory()
        self._owner._note_changes()

    def _of_kernels(self) -> tuple[Any, ...]:
        """All that tells which kernels are needed."""
        return self.rule, self.measure, self._lr_is_array, [type(c) for c in self.option_coefficients]

    def start_scaling(self) -> None:
        """Let the rule take a scale of the gradient from now on."""
        self.scales = True
        self._wrap()
        self.use_states()

    def paired_states(self) -> frozenset[str]:
        """The states that are complex where rules take pairs."""
        starts = {name: [self._owner.initial(name, self.hyper, p.theta) for p in self.parameters] for name in self._used}
        known = [name for name, values in starts.items() if any(map(np.ndim, values))]
        count = len(inspect.signature(self._chosen).parameters) - 3 - len(self._used)
        return paired_states(self._chosen, self._used, [AVERAGE, *known], count)

    def use_states(self) -> None:
        """Let the kernels update the states that the present rule needs."""
        self._count = None
        for p in self.parameters:
            p.use(self._used, has_average=self.hyper["ema_decay"] is not None)

    def _take(self, hyper: dict[str, Any]) -> None:
        self.hyper = hyper
        self.zeroes = hyper["zero_grad"]
        self.scales = self.scales or hyper["clip_norm"] is not None
        self._chosen, self._used = self._choose(hyper)
        self.schedules = {key: value for key, value in hyper.items() if callable(value)}
        self.current: Mapping[str, Any] = hyper
        self._wrap()
        sides = hyper["bounds"] or (None, None)
        needs_arrays = hyper["mask"] is not None or hyper["cautious"] or bool(self._owner.elements) or any(map(is_tree, sides))
        self.adapts = bool(needs_arrays or self.measure or self._owner.scalars)
        self._lr_is_array = is_tree(hyper["lr"])
        self._place("lr", hyper["lr"] if self._lr_is_array else None)
        self._place("mask", hyper["mask"])
        for name, side in zip(("lower", "upper"), sides, strict=True):
            self._place(name, side if is_tree(side) else None)
        if hyper["copy_to"] is not self._copies:
            self._copies = hyper["copy_to"]
            self._place_copies(self._copies, self._memory)

    def _wrap(self) -> None:
        """Make the rule and the measure with what the options do around them."""
        hyper, own = self.hyper, self._owner.own_options
        self.wrapped = Wrapped(self._chosen, hyper, own, scales=self.scales)
        self.rule, self.option_coefficients = self.wrapped.rule, self.wrapped.coefficients(self.current)
        # What an optimizer measures, or, if it is cautious, how far the update agrees with the gradient.
        measure = self._chosen if hyper["cautious"] else self._owner.measure(hyper)
        self._wrapped_measure = None if measure is None else Wrapped(measure, hyper, own, True, self.scales)
        self.measure = None if self._wrapped_measure is None else self._wrapped_measure.rule

    def move(self, memory: Memory) -> None:
        """Know of more memory that the optimizer writes to."""
        self._memory = memory
        for p in self.parameters:
            p.move(memory)

    def _place(self, name: str, tree: Any) -> None:
        """Give each parameter its array of a tree, as a vector."""
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

    def follow(self, values: Mapping[str, Any], step: int) -> None:
        """Take what the schedules gave after ``step`` steps, by hyper-parameter.

        Raises
        ------
        TypeError, ValueError
            If it is not allowed, or asks for another rule.
        """
        given = {key: checked(self._checks, key, value, label=f"the schedule's {key}({step})") for key, value in values.items()}
        current = self.hyper | given
        if none := [key for key, value in given.items() if value is None]:
            raise TypeError(f"the schedule's {none[0]}({step}) must be a real number, got None")
        if self._choose(current)[0] is not self._chosen:
            raise ValueError(f"the schedule's {given!r} after {step} steps needs another rule than the optimizer has")
        self.current = current
        self.option_coefficients = self.wrapped.coefficients(current)

    def measure_coefficients(self, own: tuple[float, ...]) -> tuple[Any, ...]:
        """The coefficients of the measure: its own, and those of the options around it."""
        return own if self._wrapped_measure is None else own + self._wrapped_measure.coefficients(self.current)

    def scale_coefficient(self) -> tuple[float, ...]:
        """What the rule and the measure take last."""
        return (self.scale,) if self.scales else ()

    def require_numbers(self, coefficients: tuple[Any, ...]) -> None:
        """Raise TypeError unless the coefficients are as many numbers as kernels were made for."""
        if not (isinstance(coefficients, tuple) and all(isinstance(c, (float, str, np.ndarray)) for c in coefficients)):
            raise TypeError(f"coefficients must be a tuple of floats, got {coefficients!r}")
        if self._count not in (None, len(coefficients)):
            raise TypeError(f"coefficients must be as many at every step, got {len(coefficients)} instead of {self._count}")
        self._count = len(coefficients)

    def kernel(self, p: Parameter, gradient: np.dtype[Any], coefficients: tuple[Any, ...]) -> Kernel:
        """The kernel that steps one of the parameters with a gradient of some dtype."""
        kernel = p.kernels.get(gradient)
        if kernel is None:
            theta, *others = p.arrays
            arrays = (theta, theta[:0].astype(gradient), *others) if self.zeroes else p.arrays
            kernel = p.kernels[gradient] = Kernel(variant_of(p, self.rule, arrays, gradient, coefficients), p.length)
        return kernel

    def launch(self, p: Parameter, g: NDArray[Any], coefficients: tuple[Any, ...]) -> Launch:
        """What updates one of the parameters, compiled or loaded from the cache if need be."""
        kernel = p.kernels.get(g.dtype) or self.kernel(p, g.dtype, coefficients)
        arrays = p.arrays if not self.zeroes else (p.arrays[0], g, *p.arrays[1:])
        return kernel.run or kernel.prepare(), (arrays, g, p.elements.get("lr", self.current["lr"]), coefficients)

    @property
    def _owner(self) -> Assembly:
        optimizer = self._optimizer()
        if optimizer is None:
            raise ValueError("the optimizer of this group is gone")
        return optimizer

    def _choose(self, hyper: Mapping[str, Any]) -> Choice:
        owner = self._owner
        if hyper["cautious"] and owner.measure(hyper) is not None:
            raise ValueError(
                f"cautious=True is not for {type(owner).__name__}, whose step depends on norms of the whole update"
            )
        rule, names = owner.choose(hyper)
        if AVERAGE in names:
            raise ValueError(
                f"{type(owner).__name__} can't have a state {AVERAGE!r}: the average of the parameters has that name"
            )
        return rule, names

    def _checked(self, key: str, value: Any) -> Any:
        if key == "lr" and is_tree(value):
            if not self._owner.takes_rates:
                raise TypeError(
                    f"lr must be a number or a schedule for {type(self._owner).__name__}, got {type(value).__name__}"
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
        return checked(self._checks, key, value)


def needed_states(hyper: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The states of the optimizer's own rule, and what the options need."""
    return (AVERAGE, *names) if hyper["ema_decay"] is not None else tuple(names)


def is_off(key: str, value: Any) -> bool:
    """Whether a hyper-parameter is an option that does nothing."""
    return value is False or (key in DEFAULTS and not is_tree(value) and value == DEFAULTS[key])
