"""The base class: groups, state, step counter. Each optimizer adds its recipe."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt import checkpoint
from fastopt.adapting import Progress, adapted, measured, warm
from fastopt.arrays import float_dtype
from fastopt.flat import equal
from fastopt.groups import ARRAYS, Group, is_tree
from fastopt.hyperparameters import checked, finite
from fastopt.memory import Memory
from fastopt.options import DEFAULTS, Options
from fastopt.parameters import Parameter, allocate
from fastopt.partition import are_groups, partition
from fastopt.recipe import Recipe
from fastopt.tree import leaves, map_leaves, matching_leaves, paths, with_leaves


class Optimizer(Recipe):
    r"""Base class of all optimizers.

    A subclass gives hyper-parameters to ``super().__init__`` and overrides `choose` and `coefficients`; `initial`, `advance`,
    `measure` and `measure_coefficients` if it needs them. The options that all optimizers have are carried out around its
    rule, which must not do it again.

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64 arrays, C- or Fortran-contiguous, aligned, writable, that don't overlap. They are held, and each
        step updates them in place. A group is a dict with the key ``"params"`` and hyper-parameters of its own.
    options : mapping, optional
        What every optimizer takes besides, which is off by default. A group can have values of its own.

        - ``weight_decay`` (float): coupled weight decay :math:`\lambda`, unless the optimizer says otherwise:
          :math:`g + \lambda\theta` takes the place of :math:`g`.
        - ``decoupled_weight_decay`` (bool): instead, :math:`\theta` shrinks by :math:`\alpha\lambda\theta` before the step.
        - ``maximize`` (bool): step up instead of down; weights decay all the same.
        - ``clip_value`` (float): limit each element of the gradient to this and its negative, before all else.
        - ``l1`` (float): after the step, move each element towards 0 by :math:`\alpha` times this, and set it to 0 where it
          is closer: the proximal step of an L1 penalty.
        - ``bounds`` (pair): a lower and an upper bound, each None, a number, or arrays nested as the parameters; where the step
          leads out of them, it ends at the bound.
        - ``cautious`` (bool): step only those elements whose update goes against the gradient, and further, by the share of
          elements that this leaves out of each tensor.
        - ``mask`` (array of bool, nested as the parameters): elements with False, and their state, stay as they are.
        - ``frozen`` (bool): parameters, state and steps of the group stay as they are; its gradients may be None.
        - ``by_name`` (mapping): values for parameters in dicts and lists, by patterns for the keys that lead to them, joined by
          dots: ``{"*.bias": {"weight_decay": 0.0}}``. The first pattern that matches counts, as `fnmatch` has it.
    **hyper
        Hyper-parameters, with their values for all groups that don't set them.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place, or a hyper-parameter is not allowed. The message names it.
    """

    _active: list[Group]
    _by_name: bool
    _defaults: dict[str, Any]
    _groups: list[Group]
    _has_schedules: bool
    _is_grouped: bool
    _is_lone: bool
    _measures: bool
    _memory: Memory
    _parameters: list[Parameter]
    _state_names: tuple[str, ...]
    _step_count: int
    _structure: Any

    def __init__(self, params: Any, *, options: Options | None = None, **hyper: Any) -> None:
        given: dict[str, Any] = dict(options or {})
        by_name = given.pop("by_name", None)
        if unknown := [key for key in given if key not in DEFAULTS]:
            raise TypeError(f"{type(self).__name__} has no argument {unknown[0]!r}; it takes {', '.join(hyper | DEFAULTS)}")
        if twice := [key for key in given if key in hyper]:
            raise TypeError(f"{type(self).__name__} sets {twice[0]} itself")
        hyper = {**hyper, **{key: given.get(key, value) for key, value in DEFAULTS.items() if key not in hyper}}
        if is_grouped := are_groups(params):
            if by_name is not None:
                raise ValueError("by_name is for parameters that are not in groups; give each group its own values")
            groups = list(params)
        else:
            groups = [{"params": params}] if by_name is None else partition(params, by_name)
        self._build(groups, hyper, is_grouped, structure=params if by_name is not None else None)

    def step(self, grads: Any, scale: float = 1.0) -> None:
        """Update the parameters and the state in place.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            Gradients of float32 or float64, nested as the parameters are; with groups, a list with the gradients of each
            group. They are only read. A gradient whose elements lie in another order than the parameter's (a transposed
            array, say) is copied first, to a buffer that is kept.
        scale : float, default 1
            Multiplies the gradients before all else, in the same pass: the reciprocal of what a loss was scaled by, say.

        Raises
        ------
        TypeError
            If a container or an array is of another kind, a dtype is another one, or a schedule gives no real number.
        ValueError
            If a key or an item is missing or too many, a shape differs, a gradient lies in memory that the step writes to,
            or a schedule gives a number that is not allowed.
        RuleError
            If a rule of one's own doesn't compile.

        Notes
        -----
        After an error, parameters, state and step counter are as they were.
        """
        if scale != 1.0:
            scale = self._start_scaling(scale)
        if self._has_schedules:
            self._follow_schedules()
        if self._is_lone:
            (p,) = self._parameters
            vectors = {p: p.gradient("grads", grads)}
        else:
            vectors = self._vectors(grads, "grads")
        active = self._active
        sums = measured(self, active, vectors, scale) if self._measures else {}
        launches: list[tuple[Any, tuple[Any, ...]]] = []
        progress: Progress = []
        for group in active:
            hyper = group.current
            if group.adapts:
                each, scalars = adapted(self, group, sums, scale)
                progress += scalars
            else:
                coefficients = self.coefficients(hyper, group.step_count + 1) + group.option_coefficients
                if group.scales:
                    coefficients += (scale,)
                if self._is_grouped:
                    # With one group a wrong number fails at the first launch, with several after others may have run.
                    group.require_numbers(coefficients)
            lr = hyper["lr"]
            for p in group.parameters:
                g = vectors[p]
                if group.adapts:
                    coefficients = each[p]
                kernel = p.kernels.get(g.dtype) or group.kernel(p, g.dtype, coefficients)
                run, span = kernel.route or kernel.prepare()
                arguments: tuple[Any, ...] = (p.arrays, g, p.elements.get("lr", lr), coefficients)
                launches.append((run, arguments + span))
        # Nothing has changed so far, and nothing can fail from here on.
        for run, arguments in launches:
            run(*arguments)
        for kept, scalars_of_step in progress:
            kept.update(scalars_of_step)
        for group in active:
            group.step_count += 1
        self._step_count += 1

    @property
    def params(self) -> Any:
        """The parameter arrays, nested as they were given (with groups, a list with those of each group)."""
        return map_leaves(lambda leaf: leaf, self._structure)

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
        return MappingProxyType({name: self._state(name) for name in self._state_names})

    def _state(self, name: str) -> Any:
        if self._is_grouped:
            return [group.state(name) for group in self._groups]
        return with_leaves(self._structure, [p.view(p.states[name]) if name in p.states else None for p in self._parameters])

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
        given = None if gradient_dtype is None else float_dtype("gradient_dtype", gradient_dtype)
        gradients = {p: given or p.theta.dtype for p in self._parameters}
        self._follow_schedules()
        for group in self._groups:
            warm(self, group, gradients)

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

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters, as in PyTorch. From then on gradients are a list with those of each group.

        Parameters
        ----------
        group : mapping
            With the key ``"params"``, and hyper-parameters of its own; for others the values given at construction hold. Its
            steps are counted from 1.

        Raises
        ------
        TypeError, ValueError
            If a parameter or a hyper-parameter is not allowed, or the optimizer was made with `by_name`. Nothing is changed.
        """
        if self._by_name:
            raise ValueError("an optimizer with by_name can't take more groups; construct it with groups instead")
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"group must be a mapping with the key 'params', got {group!r}")
        memory, count = self._memory.copy(), len(self._groups)
        own = [name for name, _ in leaves(group["params"], f"params[{count}]['params']")]
        added = self._new_group(group, count, own, memory)
        names = {p.name: f"params[0]['params']{p.name.removeprefix('params')}" for p in self._parameters}
        if not self._is_grouped:
            for p in self._parameters:
                p.name = names[p.name]
            memory.rename(names)
        self._memory = memory
        for p in self._parameters:
            p.move(memory)
        self._is_grouped = True
        self._arrange([*self._groups, added], None)
        self._begin([added])

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": [dict(group) for group in self._groups],
            "defaults": self._defaults,
            "is_grouped": self._is_grouped,
            "structure": self._structure if self._by_name else None,
            # Not those of the present rule: momentum may have been switched off since.
            "state_names": [group.state_names for group in self._groups],
            "state_dict": self.state_dict(),
            "attributes": {key: value for key, value in vars(self).items() if key not in Optimizer.__annotations__},
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved["attributes"])
        self._build(saved["groups"], saved["defaults"], saved["is_grouped"], saved["structure"], saved["state_names"])
        self.load_state_dict(saved["state_dict"])

    def _build(
        self,
        groups: Sequence[Mapping[str, Any]],
        hyper: Mapping[str, Any],
        is_grouped: bool,
        structure: Any = None,
        state_names: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        """Make everything anew; with a structure the groups are its leaves, by their paths."""
        for key, value in hyper.items():
            # Each group checks an array against its parameters.
            if not (callable(value) or (key in ARRAYS and (value is None or is_tree(value)))):
                checked(self.checks, key, value)
        self._defaults = dict(hyper)
        self._is_grouped = is_grouped
        self._by_name = structure is not None
        self._memory = Memory()
        made = []
        for i, given in enumerate(groups):
            params = given["params"]
            if self._by_name:
                whole = dict(zip(paths(structure), (name for name, _ in leaves(structure, "params")), strict=True))
                names = [whole[path] for path in params]
            else:
                names = [name for name, _ in leaves(params, f"params[{i}]['params']" if is_grouped else "params")]
            own = None if state_names is None else state_names[i]
            made.append(self._new_group(given, i, names, self._memory, own))
        self._step_count = 0
        self._arrange(made, structure)
        if not self._parameters:
            raise ValueError("params holds no array")
        names = [p.name for p in self._parameters]
        if len(set(names)) < len(names):
            raise ValueError("params has two different keys with the same repr, so that a state dict could not tell them apart")
        self._begin(made)

    def _new_group(
        self,
        given: Mapping[str, Any],
        index: int,
        names: Sequence[str],
        memory: Memory,
        state_names: tuple[str, ...] | None = None,
    ) -> Group:
        if unknown := [key for key in given if key != "params" and key not in self._defaults]:
            raise TypeError(f"group {index} has the key {unknown[0]!r}; this optimizer has {', '.join(self._defaults)}")
        own = {key: given.get(key, value) for key, value in self._defaults.items()}
        return Group(names, given["params"], own, weakref.ref(self), memory, state_names)

    def _arrange(self, groups: list[Group], structure: Any) -> None:
        """Take these groups, and order all parameters as they are nested."""
        self._groups = groups
        if structure is None:
            of_groups = [group.params for group in groups]
            self._structure = of_groups if self._is_grouped else of_groups[0]
            self._parameters = [p for group in groups for p in group.parameters]
        else:
            by_path = {path: p for group in groups for path, p in zip(group.params, group.parameters, strict=True)}
            self._structure = map_leaves(lambda leaf: leaf, structure)
            self._parameters = [by_path[path] for path in paths(structure)]
        self._is_lone = bool(self._parameters) and self._structure is self._parameters[0].leaf

    def _begin(self, groups: Sequence[Group]) -> None:
        """Give new groups their states; those of one name share a buffer."""
        # Every state once, in the order in which the groups name them.
        names = list(dict.fromkeys(name for group in groups for name in group.state_names))
        for name in names:
            allocate([p for group in groups if name in group.state_names for p in group.parameters], name)
            for group in groups:
                for p in group.parameters if name in group.state_names else []:
                    start = self.initial(name, group.hyper, p.theta)
                    if np.any(start):  # pages that hold zeros are best left untouched
                        p.states[name][...] = start
        for group in self._groups:
            group.use_states()
        self._note_changes()
        self._state_names = tuple(dict.fromkeys(name for group in self._groups for name in group.state_names))

    def _start_scaling(self, scale: Any) -> float:
        """Check a scale, and let all rules take one from now on."""
        number = finite("scale", scale)
        for group in self._groups:
            if not group.scales:
                group.start_scaling()
        return number

    def _note_changes(self) -> None:
        """Take note of what the groups are asked for now, so that steps need not look at each of them (called by groups)."""
        self._active = [group for group in self._groups if not group.hyper["frozen"]]
        self._has_schedules = any(group.schedules for group in self._groups)
        self._measures = any(group.measure is not None for group in self._active)

    def _follow_schedules(self) -> None:
        """Call each schedule once, before all else: it is the caller's code, and may change arrays and the optimizer."""
        schedules = {id(s): s for group in self._groups for s in group.schedules.values()}
        if not schedules:
            return
        values = {key: schedule(self._step_count) for key, schedule in schedules.items()}
        for group in self._groups:
            if group.schedules:
                given = {key: values[id(s)] for key, s in group.schedules.items() if id(s) in values}
                group.follow(given, self._step_count)

    def _vectors(self, grads: Any, name: str) -> dict[Parameter, NDArray[Any]]:
        """The gradient of every parameter, checked, as vectors; not those of frozen groups."""
        frozen = {p for group in self._groups if group.hyper["frozen"] for p in group.parameters}
        if frozen and self._is_grouped and isinstance(grads, (list, tuple)) and len(grads) == len(self._groups):
            grads = [group.params if group.hyper["frozen"] else own for group, own in zip(self._groups, grads, strict=True)]
        named = list(matching_leaves(self._structure, grads, name))
        return {p: p.gradient(path, g) for p, (path, g) in zip(self._parameters, named, strict=True) if p not in frozen}


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
