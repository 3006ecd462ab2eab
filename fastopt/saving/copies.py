"""All that an optimizer is, for copies and pickles of it, and to go on with other arrays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from fastopt.arrays.flat import Flat, array_of
from fastopt.arrays.layout import require_array
from fastopt.arrays.parameters import require_writable
from fastopt.arrays.tree import map_leaves, matching_leaves
from fastopt.description.options import WHOLE
from fastopt.schedules.nested import remembers
from fastopt.step.model import Model

Restored = TypeVar("Restored")

# Of what `parts` gives, what an optimizer is built from, in this order.
BUILT_FROM = ("groups", "defaults", "whole", "is_grouped", "structure", "state_names", "paired", "firsts")


def parts(model: Model, whole: Mapping[str, Any], others: Mapping[str, Any], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer is made of: what it steps, options of the whole, attributes of a subclass, and its state."""
    if model.file is not None:
        raise TypeError("an optimizer with state_path can't be copied or pickled, nor step other arrays; use its state dict")
    return {
        "groups": [dict(group) for group in model.groups],
        "defaults": dict(model.defaults),
        "whole": {key: value for key, value in whole.items() if key in WHOLE},
        "is_grouped": model.is_grouped,
        "structure": model.structure if model.by_name else None,
        # Not those of the present rule: momentum may have been switched off since.
        "state_names": [group.state_names for group in model.groups],
        "paired": model.paired,
        "firsts": [p.first for p in model.parameters],
        "state_dict": state_dict,
        "attributes": dict(others),
        # Twice the same, which a pickler that takes note of no arrays, joblib's, makes two of.
        "probe": (probe := np.zeros(1), probe),
    }


def restored(cls: type[Restored], saved: Mapping[str, Any]) -> Restored:
    """An optimizer of a class that is made of these parts."""
    optimizer: Any = object.__new__(cls)
    optimizer._restore(saved)
    return optimizer  # type: ignore[no-any-return]


def are_apart(saved: Mapping[str, Any], model: Model) -> bool:
    """Whether arrays that were loaded can be nobody else's. A `Flat` is no array; and what is read-only is refused anyway."""
    first, second = saved["probe"]
    return first is not second and any(not isinstance(p.leaf, Flat) and p.array.flags.writeable for p in model.parameters)


def with_own_schedules(saved: dict[str, Any]) -> dict[str, Any]:
    """The same for a copy, whose schedules remember for themselves."""
    memo: dict[int, Any] = {}
    for hyper in (*saved["groups"], saved["defaults"]):
        hyper |= {key: copy.deepcopy(value, memo) for key, value in hyper.items() if remembers(value)}
    return saved


def with_other_arrays(saved: dict[str, Any], model: Model, params: Any) -> dict[str, Any]:
    """The same with other arrays in the place of the parameters.

    Raises
    ------
    TypeError, ValueError
        If they are nested otherwise, or have other shapes or dtypes.
    """
    others = {}
    for p, (name, leaf) in zip(model.parameters, matching_leaves(model.structure, params, "params"), strict=True):
        array = require_array(name, p.unwrap(name, leaf), [p.array.dtype])
        if array.shape != p.shape:
            raise ValueError(f"{name} must have the shape {p.shape} as before, got {array.shape}")
        require_writable(name, array)
        others[id(p.leaf)] = leaf
    for group in saved["groups"]:
        group["params"] = map_leaves(lambda leaf: others[id(leaf)], group["params"])
    if saved["structure"] is not None:
        saved["structure"] = map_leaves(lambda leaf: others[id(leaf)], saved["structure"])
    return saved


def with_writable_copies(saved: dict[str, Any]) -> dict[str, Any]:
    """The same with arrays of its own to write copies of the parameters to, where they were loaded as read-only ones."""
    for hyper in (*saved["groups"], saved["defaults"]):
        if hyper.get("copy_to") is not None:
            hyper["copy_to"] = map_leaves(_writable, hyper["copy_to"])
    return saved


def _writable(leaf: Any) -> Any:
    return leaf if array_of(leaf).flags.writeable else copy.deepcopy(leaf)
