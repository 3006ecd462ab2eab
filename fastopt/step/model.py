"""What an optimizer steps: groups of parameters, how they are nested, their states, and the memory of all."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.codes import with_scales
from fastopt.arrays.flat import Flat, equal
from fastopt.arrays.mapped import MappedFile
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import Parameter, allocate, require_writable
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import leaves, map_leaves, matching_leaves, paths, picker, with_leaves
from fastopt.description.fields import REQUIRED, known_values
from fastopt.description.hyperparameters import checked, common_range, finite, hint, plainly
from fastopt.description.options import WHOLE
from fastopt.description.recipe import Description
from fastopt.step.changes import Changes
from fastopt.step.groups import ARRAYS, Group
from fastopt.step.states import dtype_of, first_value, has_state, is_coded, note_states_of_rows


class Model:
    """The groups of an optimizer.

    Parameters
    ----------
    description : Description
        What makes the optimizer what it is; see `description_of`.
    changes : Changes
        Where groups note what was changed.
    groups : sequence of mapping
        Parameters under ``"params"``, and hyper-parameters of their own. With a structure, the parameters by their paths.
    defaults : mapping
        Hyper-parameters that groups have if they don't set them.
    complex_mode : {"parts", "modulus"}
        How rules take complex numbers.
    state_path : path or None
        Of a file for the states.
    is_grouped : bool
        Whether gradients come as a list with those of each group.
    structure : optional
        How the parameters are nested, if the groups are made by names.
    state_names : sequence of tuple of str, optional
        The states of each group; by default those that they need.
    paired : frozenset of str
        States that are known to be pairs.
    firsts : sequence of int
        The places of the parameters among all elements, where others have elements, too.

    Attributes
    ----------
    groups : list of Group
    parameters : list of Parameter
        Of all groups, in the order of their gradients.
    structure : tree
        How they are nested.
    memory : Memory
        What steps write to.
    is_lone, is_plain : bool
        Whether there is one array, and gradients come as one; whether they come as an array, or a list or tuple of arrays.
    range : Range
        What numbers must be within, to be some in the dtypes of all parameters.
    is_plain_scale : callable
        Whether a number is a scale of gradients that needs no further look.
    file : MappedFile or None
        Where the states are, if not in memory.
    """

    def __init__(
        self,
        description: Description,
        changes: Changes,
        groups: Sequence[Mapping[str, Any]],
        defaults: Mapping[str, Any],
        complex_mode: str,
        state_path: str | None,
        is_grouped: bool,
        structure: Any = None,
        state_names: Sequence[tuple[str, ...]] | None = None,
        paired: frozenset[str] = frozenset(),
        firsts: Sequence[int] = (),
    ) -> None:
        self._description, self._changes = description, changes
        self.defaults, self.complex_mode = dict(defaults), complex_mode
        self.is_grouped, self.by_name, self.paired = is_grouped, structure is not None, paired
        self.memory = Memory()
        self.groups: list[Group] = []
        self.parameters: list[Parameter] = []
        self.structure: Any = None
        for i, given in enumerate(groups):
            if self.by_name:
                name_of = dict(zip(paths(structure), (name for name, _ in leaves(structure, "params")), strict=True))
                names = [name_of[path] for path in given["params"]]
            else:
                prefix = f"params[{i}]['params']" if is_grouped else "params"
                names = [name for name, _ in leaves(given["params"], prefix)]
            own = None if state_names is None else state_names[i]
            self.groups.append(self._group(given, i, names, own))
        self._arrange(structure)
        self._count_elements(firsts)
        if not self.parameters:
            raise ValueError("params holds no array")
        if len({p.name for p in self.parameters}) < len(self.parameters):
            raise ValueError("params has two different keys with the same repr, so that a state dict could not tell them apart")
        if state_names is None:  # else they may be read-only until they are stepped
            require_all_writable(self.parameters)
        self.file: MappedFile | None = None
        try:
            self._allocate(self.groups, state_path)
        except BaseException:
            if self.file is not None:
                self.file.release()
            raise
        self._note_form()
        self._note_range()

    def add(self, given: Mapping[str, Any]) -> None:
        """Add a group; see `Optimizer.add_param_group`."""
        if self.by_name:
            raise ValueError("an optimizer with by_name can't take more groups; construct it with groups instead")
        if self.file is not None:
            raise ValueError("an optimizer with state_path can't take more groups; construct it with all of them")
        if not isinstance(given, Mapping) or "params" not in given:
            raise TypeError(f"group must be a mapping with the key 'params', got {given!r}")
        with self._unchanged_by_errors():
            count = len(self.groups)
            names = [name for name, _ in leaves(given["params"], f"params[{count}]['params']")]
            added = self._group(given, count, names)
            require_all_writable(added.parameters)
            self._allocate([added])
            if not self.is_grouped:
                renamed = {p.name: f"params[0]['params']{p.name.removeprefix('params')}" for p in self.parameters}
                for p in self.parameters:
                    p.name = renamed[p.name]
                self.memory.rename(renamed)
                self.is_grouped, self.structure = True, [self.structure]
            self.groups = [*self.groups, added]
            firsts = [p.first for p in self.parameters]
            self.parameters = [*self.parameters, *added.parameters]
            self.structure = [*self.structure, added.params]
            self._note_range()
            self._count_elements(firsts)
            self._note_form()
            self._changes.note_plan()

    @contextlib.contextmanager
    def _unchanged_by_errors(self) -> Iterator[None]:
        """Be as before if there is an exception within a ``with`` block."""
        before, names = vars(self).copy(), [p.name for p in self.parameters]
        try:
            with self.memory.unchanged_by_errors():
                yield
        except BaseException:
            vars(self).update(before)
            for p, name in zip(self.parameters, names, strict=True):
                p.name = name
            self._changes.note_plan()
            raise

    @property
    def active(self) -> list[Group]:
        """The groups that are not frozen."""
        return [group for group in self.groups if not group.hyper["frozen"]]

    @property
    def state_names(self) -> tuple[str, ...]:
        """The states of all groups."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.state_names))

    def state(self, name: str) -> Any:
        """A state nested as the parameters are, as views; None where there is none."""
        if self.is_grouped:
            return [group.state(name) for group in self.groups]
        return with_leaves(self.structure, [p.state_view(name) for p in self.parameters])

    def common(self, name: str) -> Any:
        """The value of a hyper-parameter that all groups have.

        Raises
        ------
        ValueError
            If they have different ones.
        """
        value = self.groups[0].hyper[name]
        if len(self.groups) > 1 and not all(equal(value, group.hyper[name]) for group in self.groups):
            raise ValueError(f"the groups have different values of {name}; read param_groups[i][{name!r}]")
        return value

    def assign(self, name: str, value: Any) -> None:
        """Set a hyper-parameter in all groups, or, if one refuses it, in none."""
        if name == "lr" and self._takes_rate(value):
            return
        for group, changes in [(group, group.check({name: value})) for group in self.groups]:
            group.commit(changes)

    def _takes_rate(self, value: Any) -> bool:
        """Whether all groups have taken a learning rate at once; if not, none has."""
        for group in self.groups:
            if not group.accepts_rate(value):
                return False
        for group in self.groups:
            group.take_rate(value)
        return True

    def reset_states(self) -> None:
        """Have states, scalars and counters of all groups as at the beginning."""
        for group in self.groups:
            group.begin_anew()
            for name in group.state_names:
                for p in (p for p in group.parameters if name in p.states):
                    p.states[name][...] = 0
                    p.start(name, self._first(group, name, p))

    def collected(self, grads: Any) -> Any:
        """The gradients as arrays, or a list or tuple of arrays, if that can be told quickly; else anything."""
        if self.is_plain:
            return grads
        if self.is_lone:
            return _buffer(self.structure, grads)
        try:
            found = self._pick(grads)
        except KeyError:
            found = None
        if found is None:
            return ()  # which are not the gradients of anything
        if not self._has_flats:
            return found
        return [_buffer(p.leaf, g) for p, g in zip(self.parameters, found, strict=True)]

    def vectors(self, grads: Any, name: str) -> dict[Parameter, NDArray[Any]]:
        """The gradient of every parameter, checked, as vectors; not those of frozen groups."""
        return {p: p.gradient(path, g) for p, path, g in self.named(grads, name)}

    def named(self, grads: Any, name: str) -> list[tuple[Parameter, str, Any]]:
        """The gradient of every parameter, and what messages call it; not those of frozen groups."""
        frozen = {p for group in self.groups if group.hyper["frozen"] for p in group.parameters}
        if frozen and self.is_grouped and isinstance(grads, (list, tuple)) and len(grads) == len(self.groups):
            grads = [group.params if group.hyper["frozen"] else own for group, own in zip(self.groups, grads, strict=True)]
        named = list(matching_leaves(self.structure, grads, name))
        return [(p, path, g) for p, (path, g) in zip(self.parameters, named, strict=True) if p not in frozen]

    def _group(
        self, given: Mapping[str, Any], index: int, names: Sequence[str], state_names: tuple[str, ...] | None = None
    ) -> Group:
        if unknown := [key for key in given if key != "params" and key not in self.defaults]:
            what = f"{unknown[0]!r}{hint(unknown[0], self.defaults)}"
            raise TypeError(f"group {index} has the key {what}; this optimizer has {', '.join(self.defaults)}")
        own = {**self.defaults, **given}
        del own["params"]
        shared = (self._description, self.memory, self._changes, self.complex_mode)
        group = Group(index, names, given["params"], own, *shared, state_names)
        if not self._description.takes_modulus and any(p.is_paired for p in group.parameters):
            raise ValueError(f"complex_mode='modulus' is not for {type(self._description).__name__}")
        note_states_of_rows(self._description, group.hyper, group.parameters)
        return group

    def _arrange(self, structure: Any) -> None:
        """Order all parameters as they are nested."""
        if structure is None:
            of_groups = [group.params for group in self.groups]
            self.structure = of_groups if self.is_grouped else of_groups[0]
            self.parameters = [p for group in self.groups for p in group.parameters]
        else:
            by_path = {path: p for group in self.groups for path, p in zip(group.params, group.parameters, strict=True)}
            self.structure = map_leaves(lambda leaf: leaf, structure)
            self.parameters = [by_path[path] for path in paths(structure)]

    def _count_elements(self, firsts: Sequence[int]) -> None:
        """Give each parameter its place among all elements, which is the same however they are nested and stepped."""
        end = 0
        for p, first in itertools.zip_longest(self.parameters, firsts):
            p.first = end if first is None else first
            end = p.first + p.length

    def _note_form(self) -> None:
        """Take note of how gradients come, so that no step has to look at that."""
        leaves_of = [p.leaf for p in self.parameters]
        self.is_lone = len(leaves_of) == 1 and self.structure is leaves_of[0]
        self._pick = picker(self.structure)
        self._has_flats = any(isinstance(leaf, Flat) for leaf in leaves_of)
        is_list = type(self.structure) in (list, tuple) and len(self.structure) == len(leaves_of)
        is_flat_list = is_list and all(own is leaf for own, leaf in zip(self.structure, leaves_of, strict=True))
        self.is_plain = (self.is_lone or is_flat_list) and not self._has_flats

    def _note_range(self) -> None:
        """Take note of the scales that gradients may have."""
        self.range = common_range(p.dtype for p in self.parameters)
        self.is_plain_scale = plainly(finite, self.range)

    def _first(self, group: Group, name: str, p: Parameter) -> Any:
        """What a state holds before the first step."""
        return first_value(self._description, group.hyper, name, p)

    def _allocate(self, groups: Sequence[Group], state_path: str | None = None) -> None:
        """Give new groups their states, in memory or in a file; those of one name share a buffer."""
        # Every state once, in the order in which the groups name them.
        names = list(dict.fromkeys(name for group in groups for name in group.state_names))
        for group in groups:
            if any(p.is_paired for p in group.parameters):
                self.paired |= group.paired_states()
        holders = {name: list(self._holders(groups, name)) for name in names}
        if state_path is not None:
            if any(is_coded(name, dtype) for name, having in holders.items() for _, _, dtype in having):
                raise ValueError("state_dtype='int8' is not for state_path, whose file has no scales")
            self.file = MappedFile(state_path)
        for name, having in holders.items():
            dtypes = [dtype for _, _, dtype in having]
            allocate([p for _, p, _ in having], name, self.memory, dtypes, name in self.paired, self.file)
            for group, p, dtype in having:
                if is_coded(name, dtype):
                    p.states[name] = with_scales(p.states[name], p.sizes_of(p.states[name]))
                if self.file is not None and not self.file.is_new:
                    continue
                start = self._first(group, name, p)
                if np.any(start) if isinstance(start, np.ndarray) else start:  # pages of zeros are best left untouched
                    p.start(name, start)
        for group in groups:
            group.fill_copies()

    def _holders(self, groups: Sequence[Group], name: str) -> Iterator[tuple[Group, Parameter, np.dtype[Any]]]:
        """The parameters that have a state, with their groups, and its dtype."""
        for group in groups:
            for p in group.parameters if name in group.state_names else ():
                if has_state(group.hyper, p, name):
                    yield group, p, dtype_of(self._description, group.hyper, name, p)


def _buffer(leaf: Any, g: Any) -> Any:
    """The buffer of a gradient that is a `Flat` with the layout of this one."""
    if type(g) is not Flat or type(leaf) is not Flat:
        return g
    if g.layout is not leaf.layout and g.layout == leaf.layout:
        g.layout = leaf.layout  # the same object, which need not be compared the next time
    return g.buffer if g.layout is leaf.layout else g


def require_all_writable(parameters: Sequence[Parameter]) -> None:
    """Raise ValueError unless steps can write to all parameters."""
    for p in parameters:
        require_writable(p.name, p.array)


def checked_all(cls: type[Description], hyper: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to no group, checked; and so are hyper-parameters, but for arrays, which each group checks."""
    known = known_values(cls)
    for key, value in hyper.items():
        is_array = key in ARRAYS and (key != "lr" or is_tree(value))
        if not (value is known.get(key, REQUIRED) or callable(value) or is_array):
            checked(cls.checks, key, value)
    return {key: value if value is WHOLE[key] else checked(cls.checks, key, value) for key, value in whole.items()}
