"""All that a minimization needs to go on with the same bits, as plain values and arrays."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.optimizer import Optimizer

VERSION = 1
KEYS = ("version", "x", "optimizer", "memories")


class State(UserDict[str, Any]):
    """A checkpoint: a mapping of plain values and arrays, which results show in one line."""

    def __repr__(self) -> str:
        x, of_optimizer = self["x"], self["optimizer"]
        return f"<{of_optimizer['optimizer']} after {of_optimizer['step_count']} steps of {x.size} variables>"


def saved(x: NDArray[Any], optimizer: Optimizer, memories: Iterable[Any]) -> State:
    """A copy of it.

    Parameters
    ----------
    x : ndarray
        The point, or of many starts a row for each.
    optimizer : Optimizer
    memories : iterable
        Objects with attributes, named by ``memory``, that change from point to point.
    """
    found = {type(each).__name__: memory_of(each) for each in memories}
    return State({"version": VERSION, "x": x.copy(), "optimizer": optimizer.state_dict(), "memories": found})


def memory_of(each: Any) -> dict[str, Any]:
    """Copies of the attributes that an object's ``memory`` names."""
    return {name: copy.copy(getattr(each, name)) for name in each.memory}


def remind(each: Any, memory: Mapping[str, Any]) -> None:
    """Give an object its memory back; it begins anew if that is of a version in which it had other attributes."""
    if memory.keys() == set(each.memory):
        for name, value in memory.items():
            setattr(each, name, copy.copy(value))


def load(state: Any, x: NDArray[Any], optimizer: Optimizer, memories: Iterable[Any]) -> None:
    """Go on from a state with the hyper-parameters of the present optimizer; from another point with its averages only.

    Raises
    ------
    TypeError, ValueError
        If it is no state, or belongs to another optimizer or other variables. Nothing is changed then.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be what a result has as its state, got {type(state).__name__}")
    if missing := [key for key in KEYS if key not in state]:
        raise ValueError(f"state must be what a result has as its state, which this is not: it lacks the key {missing[0]!r}")
    if state["version"] != VERSION:
        raise ValueError(f"state must have the version {VERSION}, got {state['version']!r}")
    of_optimizer, own = state["optimizer"], optimizer.state_dict()
    if isinstance(of_optimizer, Mapping) and {"groups", "whole"} <= of_optimizer.keys():
        of_optimizer = {**of_optimizer, "groups": own["groups"], "whole": own["whole"]}
    optimizer.load_state_dict(of_optimizer)
    known = memories_of(state, x)
    for each in memories:
        remind(each, known.get(type(each).__name__, {}))


def memories_of(state: Any, x: NDArray[Any]) -> Mapping[str, Any]:
    """What a state remembers by the names of classes, if it belongs to this point."""
    is_state = isinstance(state, Mapping) and {"x", "memories"} <= state.keys()
    return state["memories"] if is_state and np.array_equal(x, state["x"]) else {}
