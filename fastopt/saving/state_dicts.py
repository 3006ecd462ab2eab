"""What a state dict holds, and how one is checked before it is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.arrays.codes import SCALE, Codes, read, with_scales, write
from fastopt.arrays.flat import array_of
from fastopt.arrays.layout import REAL, complex_of, parts, require_array
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.tree import map_leaves
from fastopt.description.hyperparameters import Check, checked, integer, real
from fastopt.description.options import WHOLE
from fastopt.engine.codes import CODES
from fastopt.engine.formats import plain
from fastopt.engine.tables import address
from fastopt.schedules.nested import load_together, remembers
from fastopt.step.groups import Group
from fastopt.step.states import FIXED

VERSION = 1

# What follows the name of a state that is codes, in that of their scales: with a dot, which no state's own name has.
SCALES = ".scales"

# Which state dicts of earlier versions lack.
FORMAT_OPTIONS = ("state_dtype", "rounding", "seed", "master_weights")

# What belongs to no group, can change after construction, and means the same on another machine.
CHANGING = tuple(key for key in WHOLE if key not in ("complex_mode", "reduce", "state_path", "threads"))


def save(
    optimizer: str, step_count: int, whole: Mapping[str, Any], groups: Sequence[Group], copy: bool = True
) -> dict[str, Any]:
    """Copy everything but the parameters, or have views of it: see `Optimizer.state_dict`."""
    return {
        "version": VERSION,
        "optimizer": optimizer,
        "step_count": step_count,
        "whole": {key: whole[key] for key in (*CHANGING, "skipped_steps")},
        "groups": [
            {key: map_leaves(_copied, value) for key, value in group.hyper.items() if _is_saved(key, value)} for group in groups
        ],
        "progress": [_progress(group) for group in groups],
        "state": _states(groups, copy),
    }


def _is_saved(key: str, value: Any) -> bool:
    """Whether a hyper-parameter is part of state dicts: functions and the arrays of copies stay with their optimizer."""
    return not callable(value) and key != "copy_to"


def _progress(group: Group) -> dict[str, Any]:
    """What has changed over the steps of a group, besides the state arrays."""
    tensors = {p.name: {name: values.tolist() for name, values in p.scalars.items()} for p in group.parameters if p.scalars}
    return {
        "step_count": group.step_count,
        "scalars": {name: float(value) for name, value in group.scalars.items()},
        "tensor_scalars": tensors,
        # All that follow a schedule, so that nobody misses their numbers; those without a memory have nothing else here.
        "schedules": {key: schedule.state_dict() if remembers(schedule) else {} for key, schedule in group.schedules.items()},
    }


def load(
    optimizer: str, checks: Mapping[str, Check], groups: Sequence[Group], saved: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Check everything, then take it: see `Optimizer.load_state_dict`.

    Returns
    -------
    step_count : int
        The step counter.
    whole : dict
        What belongs to no group.
    """
    _require_keys("state_dict", saved, ["version", "optimizer", "step_count", "whole", "groups", "progress", "state"])
    if type(saved["version"]) is not int or saved["version"] != VERSION:
        raise ValueError(f"state_dict['version'] must be {VERSION}, got {saved['version']!r}")
    if not isinstance(saved["optimizer"], str) or saved["optimizer"] != optimizer:
        raise ValueError(f"state_dict belongs to {saved['optimizer']!r}, not to {optimizer}")
    step_count = _checked_count("state_dict['step_count']", saved["step_count"])
    whole = _checked_whole(checks, saved["whole"])
    progress = _checked_progress(groups, saved["progress"])
    hyper = _checked_hyper(groups, saved["groups"], [values["schedules"] for values in progress])
    chosen = [group.get("state_dtype") for group in saved["groups"]]
    states, converted = _checked_states(groups, saved["state"], chosen)
    # Schedules check their own states, and so come first.
    load_together(
        pair for group, values in zip(groups, progress, strict=True) for pair in _memories(group, values["schedules"])
    )
    for group, changes, values in zip(groups, hyper, progress, strict=True):
        group.commit(changes)
        group.step_count = values["step_count"]
        group.scalars.update(values["scalars"])
        for p in group.parameters:
            p.scalars.update(values["tensor_scalars"].get(p.name, {}))
    for own, vector in states:
        own[...] = vector
    for group in groups:
        group.fill_copies()  # parameters may have been loaded before
    if converted:
        warnings.warn(f"states were converted to the formats that they have here: {', '.join(converted)}", stacklevel=3)
    return step_count, whole


def _checked_whole(checks: Mapping[str, Check], saved: Any) -> dict[str, Any]:
    _require_keys("state_dict['whole']", saved, [*CHANGING, "skipped_steps"])
    whole = {key: checked(checks, key, saved[key], label=f"state_dict['whole'][{key!r}]") for key in CHANGING}
    return whole | {"skipped_steps": _checked_count("state_dict['whole']['skipped_steps']", saved["skipped_steps"])}


def _checked_count(name: str, count: Any) -> int:
    if (number := integer(name, count)) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {number}")
    return number


def _require_length(name: str, saved: Any, groups: Sequence[Group]) -> None:
    if not isinstance(saved, (list, tuple)):
        raise TypeError(f"{name} must be a list, got {type(saved).__name__}")
    if len(saved) != len(groups):
        raise ValueError(f"{name} must have length {len(groups)}, got {len(saved)}")


def _checked_progress(groups: Sequence[Group], saved: Any) -> list[dict[str, Any]]:
    _require_length("state_dict['progress']", saved, groups)
    checked = []
    for i, (group, values) in enumerate(zip(groups, saved, strict=True)):
        name = f"state_dict['progress'][{i}]"
        _require_keys(name, values, ["step_count", "scalars", "tensor_scalars", "schedules"])
        _require_keys(f"{name}['scalars']", values["scalars"], group.scalars)
        holders = {p.name: p for p in group.parameters if p.scalars}
        _require_keys(f"{name}['tensor_scalars']", values["tensor_scalars"], holders)
        arrays = {}
        for key, p in holders.items():
            own, path = values["tensor_scalars"][key], f"{name}['tensor_scalars'][{key!r}]"
            _require_keys(path, own, p.scalars)
            arrays[key] = {scalar: _checked_scalars(f"{path}[{scalar!r}]", own[scalar], p.tensors) for scalar in p.scalars}
        _require_keys(f"{name}['schedules']", values["schedules"], group.hyper, optional=group.hyper)
        checked.append(
            {
                "step_count": _checked_count(f"{name}['step_count']", values["step_count"]),
                "scalars": {key: real(f"{name}['scalars'][{key!r}]", value) for key, value in values["scalars"].items()},
                "tensor_scalars": arrays,
                "schedules": values["schedules"],
            }
        )
    return checked


def _checked_scalars(name: str, values: Any, tensors: int) -> NDArray[Any]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, (int, float)) for value in values):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    if len(values) != tensors:
        raise ValueError(f"{name} must have length {tensors}, got {len(values)}")
    return np.array(values, np.float64)


def _checked_hyper(groups: Sequence[Group], saved: Any, schedules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hyper-parameters to take: what follows a schedule, there or here, stays as it is here."""
    _require_length("state_dict['groups']", saved, groups)
    checked = []
    for i, (group, values, scheduled) in enumerate(zip(groups, saved, schedules, strict=True)):
        optional = {*group.schedules, *scheduled, *FORMAT_OPTIONS}
        _require_keys(f"state_dict['groups'][{i}]", values, [key for key in group.hyper if key != "copy_to"], optional)
        stays = {*group.schedules, *FIXED}
        checked.append(group.check({key: value for key, value in values.items() if key not in stays}))
    return checked


def _memories(group: Group, saved: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The schedules that go on from a state, and that state: where there is a memory on both sides."""
    for key, schedule in group.schedules.items():
        if remembers(schedule) and saved.get(key):
            yield schedule, saved[key]


def _checked_states(
    groups: Sequence[Group], saved: Any, chosen: Sequence[Any]
) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], list[str]]:
    """Pairs of an own vector and the numbers for it; and which states had other formats, as groups may choose."""
    holders = _holders(groups)
    of_scales = [state + SCALES for state in holders]
    _require_keys("state_dict['state']", saved, [*holders, *of_scales], of_scales)
    with_formats = [g for g, there in zip(groups, chosen, strict=True) if there or g.hyper["state_dtype"]]
    choosing = {p for group in with_formats for p in group.parameters}
    pairs, converted = [], []
    for state, parameters in holders.items():
        _require_keys(f"state_dict['state'][{state!r}]", saved[state], [p.name for p in parameters])
        for p in parameters:
            own, given = p.states[state], _checked_state(p, state, saved, p in choosing)
            if given is own:
                continue
            if given.dtype != plain(own.dtype) or isinstance(given, Codes) != isinstance(own, Codes):
                converted.append(f"{state!r} of {p.name} from {given.dtype} to {plain(own.dtype)}")
                numbers, given = read(given), np.zeros_like(own)
                if isinstance(own, Codes):
                    given = with_scales(given, own.sizes)
                write(given, numbers)
            pairs.append((_bits(own), _bits(given)))
            if isinstance(own, Codes) and isinstance(given, Codes):
                pairs.append((own.scales, given.scales))
    return pairs, converted


def _checked_state(p: Parameter, state: str, saved: Mapping[str, Any], may_differ: bool) -> NDArray[Any]:
    """A state as a vector, of numbers or of codes."""
    name, array = f"state_dict['state'][{state!r}][{p.name!r}]", saved[state][p.name]
    own, full = _bits(p.state(state)), masters.DTYPES.get(state, p.dtype)
    is_complex = own.dtype.kind == "c" or own.dtype.names is not None
    scales = saved[state + SCALES].get(p.name) if isinstance(saved.get(state + SCALES), Mapping) else None
    may_differ &= state not in masters.DTYPES
    dtypes = [full, *(REAL if may_differ else ())] if scales is None else [*CODES]
    array = require_array(name, array, [complex_of(dtype) if is_complex else dtype for dtype in dict.fromkeys(dtypes)])
    if array.shape != own.shape:
        raise ValueError(f"{name} must have the shape {own.shape}, got {array.shape}")
    if scales is None and address(array) == address(own) and array.dtype == own.dtype:
        return p.states[state]  # itself, which may be larger than memory
    vector = _bits(p.detached(array)).reshape(-1, order=p.order)
    vector = vector if vector.dtype.names is None else vector.view(vector.dtype[0])
    vector = parts(vector)
    if scales is None:
        return vector
    name = f"state_dict['state'][{state + SCALES!r}][{p.name!r}]"
    scales = require_array(name, scales, [SCALE])
    codes = with_scales(vector, p.sizes_of(vector))
    if scales.shape != codes.scales.shape:
        raise ValueError(f"{name} must have the shape {codes.scales.shape}, got {scales.shape}")
    codes.scales = p.detached(scales)
    return codes


def _states(groups: Sequence[Group], copy: bool) -> dict[str, dict[str, NDArray[Any]]]:
    """States as state dicts have them, and beside those that are codes the scales."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, parameters in _holders(groups).items():
        found[name] = {p.name: _saved(np.asarray(p.state(name)), copy) for p in parameters}
        coded = {p.name: p.states[name] for p in parameters}
        if scales := {key: _saved(each.scales, copy) for key, each in coded.items() if isinstance(each, Codes)}:
            found[name + SCALES] = scales
    return found


def _saved(array: NDArray[Any], copy: bool) -> NDArray[Any]:
    """An array as state dicts have it."""
    array = _bits(array)
    return array.copy("K") if copy else array


def _holders(groups: Sequence[Group]) -> dict[str, list[Parameter]]:
    """The parameters that have each state, by its name."""
    holders: dict[str, list[Parameter]] = {}
    for group in groups:
        for state in group.state_names:
            holders.setdefault(state, []).extend(p for p in group.parameters if state in p.states)
    return holders


def _require_keys(name: str, mapping: Any, keys: Any, optional: Any = ()) -> None:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(mapping).__name__}")
    if missing := [key for key in keys if key not in mapping and key not in optional]:
        raise ValueError(f"{name} lacks the key {missing[0]!r}")
    known = set(keys)
    if extra := [key for key in mapping if key not in known]:
        raise ValueError(f"{name} has the unknown key {extra[0]!r}")


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory in a dtype that NumPy knows itself."""
    return array.view(plain(array.dtype))


def _copied(value: Any) -> Any:
    array = array_of(value)
    return array.copy("K") if isinstance(array, np.ndarray) else array
