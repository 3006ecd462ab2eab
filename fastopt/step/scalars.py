"""Running scalars, which compiled code moves on together with the arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import Parameter
from fastopt.description.recipe import Description

NONE = np.zeros((2, 1, 0))


class Scalars(MutableMapping[str, Any]):
    """Numbers, or vectors of them, by name, as they are now; what takes their place is written beside them.

    Parameters
    ----------
    names : sequence of str
    memory : ndarray of float64, shape (2, tensors, names)
        First as they are, then as they will be.
    is_single : bool
        Whether each is one number.
    """

    def __init__(self, names: Mapping[str, float], memory: NDArray[Any], is_single: bool) -> None:
        self._places = {name: i for i, name in enumerate(names)}
        self._memory, self._is_single = memory, is_single

    def __getitem__(self, name: str) -> Any:
        place = self._places[name]
        return float(self._memory[0, 0, place]) if self._is_single else self._memory[0, :, place]

    def __setitem__(self, name: str, value: Any) -> None:
        self._memory[:, :, self._places[name]] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} can be set, but not removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return repr(dict(self))


def running_scalars(first: Mapping[str, float], tensors: int) -> NDArray[Any]:
    """The memory of scalars that start at these values, for so many tensors: shape (2, tensors, names)."""
    if not first:
        return NONE
    values = np.array([*first.values()], np.float64)
    return np.array(np.broadcast_to(values, (2, tensors, len(first))), order="C")


def scalars_of(description: Description, parameters: Sequence[Parameter]) -> tuple[NDArray[Any], Scalars, Scalars]:
    """Make the running scalars of a group, or give each tensor its own.

    Returns
    -------
    memory : ndarray of float64
        As `Scalars` has it.
    running, own : Scalars
        Those of the group or of all its tensors, and those of the group, which are none if tensors have their own.
    """
    first, is_by_tensor, tensors = description.scalars, description.per_tensor, [p.tensors for p in parameters]
    memory = running_scalars(first, sum(tensors) if is_by_tensor else 1)
    running = Scalars(first, memory, is_single=not is_by_tensor)
    if not is_by_tensor:
        return memory, running, running
    for p, count, end in zip(parameters, tensors, itertools.accumulate(tensors), strict=True):
        p.scalars = Scalars(first, memory[:, end - count : end], is_single=False)
    return memory, running, Scalars({}, memory, is_single=True)
