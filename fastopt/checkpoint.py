"""What a state dict holds, and how one is checked before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import require_array
from fastopt.flat import array_of
from fastopt.groups import Group
from fastopt.parameters import Parameter
from fastopt.tree import map_leaves

VERSION = 1


def save(optimizer: str, step_count: int, groups: Sequence[Group]) -> dict[str, Any]:
    """Copy everything but the parameters: see `Optimizer.state_dict`."""
    return {
        "version": VERSION,
        "optimizer": optimizer,
        "step_count": step_count,
        "groups": [
            {key: map_leaves(_copied, value) for key, value in group.hyper.items() if not callable(value)} for group in groups
        ],
        "state": {
            name: {p.name: p.shaped(p.states[name]).copy("K") for p in parameters}
            for name, parameters in _holders(groups).items()
        },
    }


def load(optimizer: str, groups: Sequence[Group], saved: Mapping[str, Any]) -> int:
    """Check everything, then take it: see `Optimizer.load_state_dict`.

    Returns
    -------
    int
        The step counter.
    """
    _require_keys("state_dict", saved, ["version", "optimizer", "step_count", "groups", "state"])
    if type(saved["version"]) is not int or saved["version"] != VERSION:
        raise ValueError(f"state_dict['version'] must be {VERSION}, got {saved['version']!r}")
    if not isinstance(saved["optimizer"], str) or saved["optimizer"] != optimizer:
        raise ValueError(f"state_dict belongs to {saved['optimizer']!r}, not to {optimizer}")
    step_count = saved["step_count"]
    if isinstance(step_count, bool) or not isinstance(step_count, (int, np.integer)):
        raise TypeError(f"state_dict['step_count'] must be an integer, got {step_count!r}")
    if not 0 <= step_count < 2**63:
        raise ValueError(f"state_dict['step_count'] must be at least 0 and below 2**63, got {step_count}")
    hyper = _checked_hyper(groups, saved["groups"])
    states = _checked_states(groups, saved["state"])
    for group, values in zip(groups, hyper, strict=True):
        group.commit(values)
    for own, array in states:
        own[...] = array
    return int(step_count)


def _checked_hyper(groups: Sequence[Group], saved: Any) -> list[dict[str, Any]]:
    if not isinstance(saved, (list, tuple)):
        raise TypeError(f"state_dict['groups'] must be a list, got {type(saved).__name__}")
    if len(saved) != len(groups):
        raise ValueError(f"state_dict['groups'] must have length {len(groups)}, got {len(saved)}")
    checked = []
    for i, (group, values) in enumerate(zip(groups, saved, strict=True)):
        # A schedule isn't saved, so it may be missing where this optimizer has one.
        optional = {key for key, value in group.hyper.items() if callable(value)}
        _require_keys(f"state_dict['groups'][{i}]", values, group.hyper, optional)
        checked.append(group.check(values))
    return checked


def _checked_states(groups: Sequence[Group], saved: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of an own state array and the saved one to copy from."""
    holders = _holders(groups)
    _require_keys("state_dict['state']", saved, holders)
    pairs = []
    for state, parameters in holders.items():
        _require_keys(f"state_dict['state'][{state!r}]", saved[state], [p.name for p in parameters])
        for p in parameters:
            name, own, array = f"state_dict['state'][{state!r}][{p.name!r}]", p.shaped(p.states[state]), saved[state][p.name]
            require_array(name, array)
            if array.dtype != own.dtype:
                raise TypeError(f"{name} must be of {own.dtype}, got {array.dtype}")
            if array.shape != own.shape:
                raise ValueError(f"{name} must have the shape {own.shape}, got {array.shape}")
            pairs.append((own, p.detached(np.asarray(array))))
    return pairs


def _holders(groups: Sequence[Group]) -> dict[str, list[Parameter]]:
    """The parameters that have each state, by its name."""
    holders: dict[str, list[Parameter]] = {}
    for group in groups:
        for state in group.state_names:
            holders.setdefault(state, []).extend(group.parameters)
    return holders


def _require_keys(name: str, mapping: Any, keys: Any, optional: Any = ()) -> None:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(mapping).__name__}")
    if missing := [key for key in keys if key not in mapping and key not in optional]:
        raise ValueError(f"{name} lacks the key {missing[0]!r}")
    if extra := [key for key in mapping if key not in keys]:
        raise ValueError(f"{name} has the unknown key {extra[0]!r}")


def _copied(value: Any) -> Any:
    array = array_of(value)
    return array.copy("K") if isinstance(array, np.ndarray) else array
