"""A parameter group: arrays with hyper-parameters of their own, in PyTorch's form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from fastopt.arrays import aligned_zeros, require_array
from fastopt.engine.compile import Rule, Variant
from fastopt.engine.kernel import Kernel
from fastopt.engine.transforms import with_options
from fastopt.flat import Flat
from fastopt.hyperparameters import Check, checked
from fastopt.memory import Memory
from fastopt.parameters import Parameter
from fastopt.tree import leaves, map_leaves, matching_leaves, with_leaves

# The rule for some hyper-parameters, and the names of its states.
Choice = tuple[Rule, tuple[str, ...]]


class Group(MutableMapping[str, Any]):
    """``group["lr"] = 3e-4``: every assignment is checked at once, and the next step uses it.

    Parameters
    ----------
    name : str
        How messages call the parameters.
    params : ndarray, Flat, or list, tuple or dict of them, nested
        The arrays are held, not copied.
    hyper : mapping
        All hyper-parameters of the optimizer.
    choose : weakref.WeakMethod
        To `Optimizer.choose`.
    checks : mapping of callable
        The check for each hyper-parameter by its name; others may be any finite number.
    memory : Memory
        What the optimizer writes to; the parameters are added.
    state_names : tuple of str, optional
        The states to have; by default those that the rule needs now.

    Attributes
    ----------
    parameters : list of Parameter
        One for each leaf of `params`.
    hyper : dict
        The checked hyper-parameters; read it, but assign through the group.
    rule : callable
        The rule for `hyper`, with what the options do around it.
    option_coefficients : tuple of float
        What the options around the rule take, after the rule's own coefficients.
    has_schedule : bool
        Whether the learning rate is a callable.
    current : mapping
        The same as `hyper`, with the number that a schedule gave last in its place.
    state_names : tuple of str
        The states that it has; the present rule may use fewer.
    """

    def __init__(
        self,
        name: str,
        params: Any,
        hyper: Mapping[str, Any],
        choose: Callable[[], Callable[[Mapping[str, Any]], Choice] | None],
        checks: Mapping[str, Check],
        memory: Memory,
        state_names: tuple[str, ...] | None = None,
    ) -> None:
        self.params = map_leaves(lambda leaf: leaf, params)  # containers of its own: the caller's may change
        self.parameters = [Parameter(path, leaf, memory) for path, leaf in leaves(params, name)]
        self._weak_choose = choose
        self._checks = checks
        self._count: int | None = None  # of the coefficients that the kernels take
        self._take({key: self._checked(key, value) for key, value in hyper.items()})
        self.state_names = self._used if state_names is None else state_names

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
            f"{key}={'<array>' if key == 'lr' and self._lr_is_array else repr(value)}" for key, value in self.hyper.items()
        )
        count = len(self.parameters)
        arrays = f"{count} array{'' if count == 1 else 's'} of {sum(p.theta.size for p in self.parameters)} elements"
        return f"<{arrays}, {hyper}>"

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
                raise TypeError(f"there is no hyper-parameter {key!r}; this optimizer has {', '.join(self.hyper)}")
        hyper = self.hyper | {key: self._checked(key, value) for key, value in changes.items()}
        _, names = self._choose(hyper)
        if missing := [name for name in names if name not in self.state_names]:
            values = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            raise ValueError(f"{values} needs the state {missing[0]!r}, which this optimizer was constructed without")
        return hyper

    def commit(self, hyper: dict[str, Any]) -> None:
        """Take hyper-parameters that `check` gave."""
        before = self.rule, self._lr_is_array
        self._take(hyper)
        if (self.rule, self._lr_is_array) != before:
            self.use_states()

    def use_states(self) -> None:
        """Let the kernels update the states that the present rule needs."""
        self._count = None
        for p in self.parameters:
            p.use(self._used)

    def _take(self, hyper: dict[str, Any]) -> None:
        self.hyper = hyper
        rule, self._used = self._choose(hyper)
        self.rule, self.option_coefficients = with_options(rule, hyper)
        self.has_schedule = callable(hyper["lr"])
        self.current: Mapping[str, Any] = hyper
        self._lr_is_array = is_array_lr(hyper["lr"])
        for p in self.parameters:
            p.lr = None
        if self._lr_is_array:
            for p, (name, lr) in zip(self.parameters, leaves(hyper["lr"], "lr"), strict=True):
                p.lr = p.unwrap(name, lr).reshape(-1, order=p.order)

    def params_copy(self) -> Any:
        """The parameters in containers that the caller may change."""
        return map_leaves(lambda leaf: leaf, self.params)

    def state(self, name: str) -> Any:
        """A state nested as the parameters are, as views; None if the group hasn't got it."""
        if name not in self.state_names:
            return None
        return with_leaves(self.params, [p.view(p.states[name]) for p in self.parameters])

    def follow(self, rate: Any, step: int) -> None:
        """Take what the schedule gave after ``step`` steps.

        Raises
        ------
        TypeError, ValueError
            If it is not allowed.
        """
        self.current = self.hyper | {"lr": checked(self._checks, "lr", rate, label=f"the schedule's lr({step})")}

    def require_numbers(self, coefficients: tuple[float, ...]) -> None:
        """Raise TypeError unless the coefficients are as many numbers as kernels were made for."""
        if not (isinstance(coefficients, tuple) and all(isinstance(c, float) for c in coefficients)):
            raise TypeError(f"coefficients must be a tuple of floats, got {coefficients!r}")
        if self._count not in (None, len(coefficients)):
            raise TypeError(f"coefficients must be as many at every step, got {len(coefficients)} instead of {self._count}")

    def kernel(self, p: Parameter, gradient: np.dtype[Any], coefficients: int) -> Kernel:
        """The kernel that steps one of the parameters with a gradient of some dtype."""
        kernel = p.kernels.get(gradient)
        if kernel is None:
            self._count = coefficients
            states = len(p.arrays) - 1
            variant = Variant(self.rule, p.theta.dtype, gradient, states, coefficients, self._lr_is_array, parallel=False)
            kernel = p.kernels[gradient] = Kernel(variant, p.theta.size)
        return kernel

    def _choose(self, hyper: Mapping[str, Any]) -> Choice:
        choose = self._weak_choose()
        if choose is None:
            raise ValueError("the optimizer of this group is gone")
        return choose(hyper)

    def _checked(self, key: str, value: Any) -> Any:
        if key == "lr" and is_array_lr(value):
            return self._checked_lr_array(value)
        if key == "lr" and callable(value):
            return value
        return checked(self._checks, key, value)

    def _checked_lr_array(self, value: Any) -> Any:
        """A read-only copy of the rates, nested as the parameters are."""
        copies = []
        for p, (name, lr) in zip(self.parameters, matching_leaves(self.params, value, "lr"), strict=True):
            array = p.unwrap(name, lr)
            require_array(name, array)
            array = np.asarray(array)
            if array.shape != p.shape:
                raise ValueError(f"{name} must be a number, or have the shape {p.shape} of {p.name}, got {array.shape}")
            vector = aligned_zeros(array.size, p.theta.dtype)
            with np.errstate(all="ignore"):  # what doesn't fit is infinite, and refused as such
                p.shaped(vector)[...] = array
            if not np.all((vector >= 0) & (vector < np.inf)):
                raise ValueError(f"{name} must hold finite numbers of at least 0, in the parameter's dtype {vector.dtype}")
            owner = vector.base if isinstance(vector.base, np.ndarray) else vector
            owner.flags.writeable = vector.flags.writeable = False  # the owner too, or users could make it writable again
            copies.append(p.view(vector))
        return with_leaves(self.params, copies)


def is_array_lr(lr: Any) -> bool:
    """Whether a learning rate has the form of an array, or of a tree of them."""
    return isinstance(lr, (Flat, Mapping, list, tuple)) or (isinstance(lr, np.ndarray) and lr.ndim > 0)
