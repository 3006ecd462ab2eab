"""How an optimizer is put together: its groups, the states of their parameters, and what it is as a whole."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastopt.accumulation import Accumulation
from fastopt.element_arrays import is_tree
from fastopt.groups import ARRAYS, Group
from fastopt.hyperparameters import checked, hint
from fastopt.memory import Memory
from fastopt.parameters import AVERAGE, Parameter, allocate
from fastopt.recipe import Recipe
from fastopt.survey import Survey
from fastopt.tree import leaves, map_leaves, paths


class Assembly(Recipe):
    """The parts of an optimizer. What takes steps with them is `Optimizer`."""

    _accumulation: Accumulation
    _active: list[Group]
    _background: tuple[int, ThreadPoolExecutor] | None
    _by_name: bool
    _complex_mode: str
    _defaults: dict[str, Any]
    _groups: list[Group]
    _has_schedules: bool
    _is_grouped: bool
    _is_lone: bool
    _is_swapped: bool
    _measures: bool
    _memory: Memory
    _paired: frozenset[str]
    _parameters: list[Parameter]
    _plain: tuple[Group, Parameter] | None
    _reduction: str
    _skipped_steps: int
    _state_names: tuple[str, ...]
    _step_count: int
    _structure: Any
    _survey: Survey
    _surveys: bool
    _zeroes: bool

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
        self._allocate([added])
        names = {p.name: f"params[0]['params']{p.name.removeprefix('params')}" for p in self._parameters}
        if not self._is_grouped:
            for p in self._parameters:
                p.name = names[p.name]
            memory.rename(names)
        self._memory = memory
        for each in self._groups:
            each.move(memory)
        self._is_grouped = True
        self._arrange([*self._groups, added], None)
        self._begin([added])

    def _build(
        self,
        groups: Sequence[Mapping[str, Any]],
        hyper: Mapping[str, Any],
        whole: Mapping[str, Any],
        is_grouped: bool,
        structure: Any = None,
        state_names: Sequence[tuple[str, ...]] | None = None,
        paired: frozenset[str] = frozenset(),
    ) -> None:
        """Make everything anew; with a structure the groups are its leaves, by their paths."""
        for key, value in hyper.items():
            # Each group checks an array against its parameters.
            if not (callable(value) or (key in ARRAYS and (key != "lr" or is_tree(value)))):
                checked(self.checks, key, value)
        whole = {key: checked(self.checks, key, value) for key, value in whole.items()}
        self._survey = Survey(whole["clip_norm"], whole["nonfinite"])
        self._reduction = whole["reduction"]
        self._complex_mode = whole["complex_mode"]
        self._accumulation = Accumulation()
        self._background = None
        self._is_swapped = False
        self._skipped_steps = 0
        self._paired = paired
        self._defaults = dict(hyper)
        self._is_grouped = is_grouped
        self._by_name = structure is not None
        self._memory = Memory()
        made = []
        for i, given in enumerate(groups):
            params = given["params"]
            if self._by_name:
                name_of = dict(zip(paths(structure), (name for name, _ in leaves(structure, "params")), strict=True))
                names = [name_of[path] for path in params]
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
        self._allocate(made)
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
            what = f"{unknown[0]!r}{hint(unknown[0], self._defaults)}"
            raise TypeError(f"group {index} has the key {what}; this optimizer has {', '.join(self._defaults)}")
        own = {key: given.get(key, value) for key, value in self._defaults.items()}
        group = Group(names, given["params"], own, weakref.ref(self), memory, self._complex_mode, state_names)
        if not self.takes_modulus and any(p.is_paired for p in group.parameters):
            raise ValueError(f"complex_mode='modulus' is not for {type(self).__name__}")
        return group

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

    def _allocate(self, groups: Sequence[Group]) -> None:
        """Give new groups their states; those of one name share a buffer."""
        # Every state once, in the order in which the groups name them.
        names = list(dict.fromkeys(name for group in groups for name in group.state_names))
        for group in groups:
            if any(p.is_paired for p in group.parameters):
                self._paired |= group.paired_states()
        for name in names:
            holders = [p for group in groups if name in group.state_names for p in group.parameters]
            allocate(holders, name, is_paired=name in self._paired)
            for group in groups:
                for p in group.parameters if name in group.state_names else []:
                    start = p.theta if name == AVERAGE else self.initial(name, group.hyper, p.theta)
                    if np.any(start):  # pages that hold zeros are best left untouched
                        p.start(name, start)

    def _begin(self, groups: Sequence[Group]) -> None:
        """Let new groups take part."""
        for group in self._groups:
            group.use_states()
        for group in groups:
            group.fill_copies()
        self._note_changes()
        self._state_names = tuple(dict.fromkeys(name for group in self._groups for name in group.state_names))

    def _note_memory(self) -> None:
        """Take note of more memory that steps write to (called by groups)."""
        for p in self._parameters:
            p.note_memory()

    def _note_changes(self) -> None:
        """Take note of what the groups are asked for now, so that steps need not look at each of them (called by groups)."""
        for group in self._groups:
            group.steady = None
        self._active = [group for group in self._groups if not group.hyper["frozen"]]
        self._has_schedules = any(group.schedules for group in self._groups)
        self._measures = any(group.measure is not None for group in self._active)
        self._zeroes = any(group.zeroes for group in self._active)
        self._surveys = self._survey.is_needed(self._active)
        if self._survey.clip_norm is not None:
            self._start_scaling()
        self._note_plain()

    def _note_plain(self) -> None:
        """Take note of the only array, if the next step is nothing but its update."""
        self._plain = None
        has_more = self._has_schedules or self._measures or self._zeroes or self._surveys or self._is_swapped
        if self._is_lone and self._active and not has_more and not self._accumulation.count:
            (group,) = self._groups
            if not (group.adapts or group.scales):
                self._plain = group, self._parameters[0]

    def _start_scaling(self) -> None:
        """Let all rules take a scale of the gradient from now on."""
        self._plain = None
        for group in self._groups:
            if not group.scales:
                group.start_scaling()
