"""The base class: groups, state, step counter. Each optimizer adds its rule and its coefficients."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastopt import checkpoint
from fastopt.arrays import float_dtype
from fastopt.flat import equal
from fastopt.groups import Choice, Group, is_array_lr
from fastopt.hyperparameters import CHECKS, Check, checked
from fastopt.memory import Memory
from fastopt.parameters import allocate
from fastopt.tree import matching_leaves

# The attributes that `Optimizer._build` makes; any other is a subclass's.
_OWN = ("_groups", "_is_grouped", "_is_lone", "_parameters", "_state_names", "_step_count", "_structure")


class Optimizer:
    """Base class of all optimizers.

    A subclass gives hyper-parameters to ``super().__init__`` and overrides `choose` and `coefficients`. If ``weight_decay``,
    ``decoupled_weight_decay`` or ``maximize`` are among them, they are carried out around its rule, which must not do it again.

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64 arrays, C- or Fortran-contiguous, aligned, writable, that don't overlap. They are held, and each
        step updates them in place. A group is a dict with the key ``"params"`` and hyper-parameters of its own.
    **hyper
        Hyper-parameters with their values for all groups that don't set them.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place, or a hyper-parameter is not allowed. The message names it.
    """

    checks: ClassVar[Mapping[str, Check]] = CHECKS
    """The check of each hyper-parameter; a subclass extends it: ``{**Optimizer.checks, "power": check}``."""

    _step_count: int

    def __init__(self, params: Any, **hyper: Any) -> None:
        grouped = (
            isinstance(params, (list, tuple))
            and len(params) > 0
            and all(isinstance(item, Mapping) and "params" in item for item in params)
        )
        self._build(list(params) if grouped else [{"params": params}], hyper, grouped)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        """Choose the rule.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.

        Returns
        -------
        rule : callable
            Made by `rule`.
        state_names : tuple of str
            Names of the states, in the order in which the rule takes them.

        Raises
        ------
        ValueError
            If hyper-parameters contradict each other.
        """
        raise NotImplementedError

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        """Compute what the rule takes after its states, in double precision.

        It must depend on its arguments alone, and change nothing: `warmup` calls it, too.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group; a schedule is replaced by its number.
        t : int
            The step; the first is 1.

        Returns
        -------
        tuple of float
            One for each of the rule's last arguments.
        """
        raise NotImplementedError

    def step(self, grads: Any) -> None:
        """Update the parameters and the state in place.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            Gradients of float32 or float64, nested as the parameters are; with groups, a list with the gradients of each
            group. They are only read. A gradient whose elements lie in another order than the parameter's (a transposed
            array, say) is copied first, to a buffer that is kept.

        Raises
        ------
        TypeError
            If a container or an array is of another kind, a dtype is another one, or a schedule gives no real number.
        ValueError
            If a key or an item is missing or too many, a shape differs, a gradient lies in memory that the step writes to,
            or a schedule gives a rate that is not allowed.
        numba.core.errors.TypingError
            If a rule doesn't compile.

        Notes
        -----
        After an error, parameters, state and step counter are as they were.
        """
        done = self._step_count
        for group in self._groups:
            if group.has_schedule:
                self._follow_schedules()
                break
        vectors = iter((self._parameters[0].gradient("grads", grads),) if self._is_lone else self._vectors(grads))
        launches: list[tuple[Any, tuple[Any, ...]]] = []
        for group in self._groups:
            hyper = group.current
            coefficients = self.coefficients(hyper, done + 1)
            if group.option_coefficients:
                coefficients += group.option_coefficients
            if self._is_grouped:
                # With one group a wrong number fails at the first launch, with several after others may have run.
                group.require_numbers(coefficients)
            lr = hyper["lr"]
            for p in group.parameters:
                g = next(vectors)
                kernel = p.kernels.get(g.dtype) or group.kernel(p, g.dtype, len(coefficients))
                run, span = kernel.route or kernel.prepare()
                arguments: tuple[Any, ...] = (p.arrays, g, lr if p.lr is None else p.lr, coefficients)
                launches.append((run, arguments + span))
        # Nothing has changed so far, and nothing can fail from here on.
        for run, arguments in launches:
            run(*arguments)
        self._step_count = done + 1

    @property
    def params(self) -> Any:
        """The parameter arrays, nested as they were given (with groups, a list with those of each group)."""
        return self._arranged([group.params_copy() for group in self._groups])

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The groups, each a mapping of hyper-parameters and ``"params"``; assign to its items at any time."""
        return tuple(self._groups)

    @property
    def step_count(self) -> int:
        """How many steps were taken."""
        return self._step_count

    @property
    def lr(self) -> Any:
        """The learning rate: a number, an array in the parameter's shape (nested as they are), or a schedule.

        A schedule is called before each step with the number of steps taken so far, and returns a number. An array is copied
        when it is assigned, and read-only afterwards. Assigning sets the rate of every group.

        Raises
        ------
        ValueError
            On reading, if groups have different rates: then see `param_groups`.
        """
        first, *others = [group["lr"] for group in self._groups]
        if not all(equal(first, lr) for lr in others):
            raise ValueError("the groups have different learning rates; read param_groups[i]['lr']")
        return first

    @lr.setter
    def lr(self, value: Any) -> None:
        for group, hyper in [(group, group.check({"lr": value})) for group in self._groups]:
            group.commit(hyper)

    @property
    def state(self) -> Mapping[str, Any]:
        """The state arrays by name, nested as the parameters are: views of flat buffers (None in a group without it)."""
        states = {name: self._arranged([group.state(name) for group in self._groups]) for name in self._state_names}
        return MappingProxyType(states)

    def warmup(self, gradient_dtype: Any = None) -> None:
        """Compile what the next step will run, or load it from the cache.

        Parameters
        ----------
        gradient_dtype : float32 or float64, optional
            By default each parameter's own.

        Raises
        ------
        TypeError
            If `gradient_dtype` is another one.
        """
        for group in self._groups:
            hyper = group.hyper | {"lr": 0.0} if group.has_schedule else group.hyper  # schedules are called for steps alone
            count = len(self.coefficients(hyper, self._step_count + 1)) + len(group.option_coefficients)
            for p in group.parameters:
                dtype = p.theta.dtype if gradient_dtype is None else float_dtype("gradient_dtype", gradient_dtype)
                group.kernel(p, dtype, count).prepare()

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs, besides the parameters, to go on with the same bits.

        Returns
        -------
        dict
            Plain Python values, and copies of the state arrays by state and parameter name. A schedule is left out: the
            optimizer that loads the dict keeps its own.
        """
        return checkpoint.save(type(self).__name__, self._step_count, self._groups)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. The values are copied.

        Parameters
        ----------
        state_dict : mapping
            From an optimizer of the same class, with parameters of the same structure, shapes and dtypes.

        Raises
        ------
        TypeError, ValueError
            If it is damaged or belongs to another optimizer or to other parameters. Nothing is changed then.
        """
        self._step_count = checkpoint.load(type(self).__name__, self._groups, state_dict)

    def __repr__(self) -> str:
        groups = ", ".join(map(repr, self._groups))
        return f"{type(self).__name__}({groups}, step_count={self._step_count})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": [dict(group) for group in self._groups],
            "is_grouped": self._is_grouped,
            # Not those of the present rule: momentum may have been switched off since.
            "state_names": [group.state_names for group in self._groups],
            "state_dict": self.state_dict(),
            "attributes": {key: value for key, value in vars(self).items() if key not in _OWN},
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved["attributes"])
        hyper = {key: value for key, value in saved["groups"][0].items() if key != "params"}
        self._build(saved["groups"], hyper, saved["is_grouped"], saved["state_names"])
        self.load_state_dict(saved["state_dict"])

    def _build(
        self,
        groups: Sequence[Mapping[str, Any]],
        hyper: Mapping[str, Any],
        is_grouped: bool,
        state_names: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        for key, value in hyper.items():
            # Each group checks an array against its parameters.
            if not (key == "lr" and (is_array_lr(value) or callable(value))):
                checked(self.checks, key, value)
        # Weak, or optimizer and groups would keep each other, and all state, alive until Python looks for cycles.
        choose = weakref.WeakMethod(self.choose)
        memory = Memory()
        self._is_grouped = is_grouped
        self._groups: list[Group] = []
        for i, given in enumerate(groups):
            if unknown := [key for key in given if key != "params" and key not in hyper]:
                raise TypeError(f"group {i} has the key {unknown[0]!r}; this optimizer has {', '.join(hyper)}")
            own = {key: given.get(key, value) for key, value in hyper.items()}
            name = f"params[{i}]['params']" if is_grouped else "params"
            states = None if state_names is None else state_names[i]
            self._groups.append(Group(name, given["params"], own, choose, self.checks, memory, states))
        self._parameters = [p for group in self._groups for p in group.parameters]
        if not self._parameters:
            raise ValueError("params holds no array")
        names = [p.name for p in self._parameters]
        if len(set(names)) < len(names):
            raise ValueError("params has two different keys with the same repr, so that a state dict could not tell them apart")
        self._structure = self._arranged([group.params for group in self._groups])
        self._is_lone = self._structure is self._parameters[0].leaf
        self._step_count = 0
        # Every state once, in the order in which the groups name them.
        self._state_names = tuple(dict.fromkeys(name for group in self._groups for name in group.state_names))
        for name in self._state_names:
            allocate([p for group in self._groups if name in group.state_names for p in group.parameters], name)
        for group in self._groups:
            group.use_states()

    def _follow_schedules(self) -> None:
        """Call each schedule once, before all else: it is the caller's code, and may change arrays and the optimizer."""
        schedules = {id(lr): lr for lr in (group.hyper["lr"] for group in self._groups) if callable(lr)}
        rates = {key: schedule(self._step_count) for key, schedule in schedules.items()}
        for group in self._groups:
            if id(group.hyper["lr"]) in rates:
                group.follow(rates[id(group.hyper["lr"])], self._step_count)

    def _vectors(self, grads: Any) -> list[NDArray[Any]]:
        """The gradient of every parameter, checked, as vectors."""
        named = list(matching_leaves(self._structure, grads, "grads"))
        return [p.gradient(name, g) for p, (name, g) in zip(self._parameters, named, strict=True)]

    def _arranged(self, of_groups: list[Any]) -> Any:
        return of_groups if self._is_grouped else of_groups[0]


def warmup(*optimizers: Optimizer, gradient_dtype: Any = None) -> None:
    """Compile what the next step of some optimizers will run, or load it from the cache, so that no step waits for it.

    Parameters
    ----------
    *optimizers : Optimizer
        With the parameters they will step: their sizes and dtypes decide which kernels are needed.
    gradient_dtype : float32 or float64, optional
        By default each parameter's own.

    Raises
    ------
    TypeError
        If `gradient_dtype` is another one.
    """
    for optimizer in optimizers:
        optimizer.warmup(gradient_dtype)
