"""Gradients that a step sets to zero: whether that can be done, and where the pass itself doesn't reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import Copied, Parameter


def require_zeroable(
    zeroed: Sequence[Parameter], vectors: Mapping[Parameter, NDArray[Any]], named: Mapping[Parameter, tuple[str, Any]]
) -> list[NDArray[Any]]:
    """Check that gradients can be set to zero.

    Parameters
    ----------
    zeroed : sequence of Parameter
        Those whose gradients become zero.
    vectors : mapping
        What kernels will take for each parameter: the gradient's memory, or a copy.
    named : mapping
        What messages call each gradient, and the array that was given.

    Returns
    -------
    list of ndarray
        Those of which there are copies.

    Raises
    ------
    ValueError
        If a gradient is read-only, or shares memory with another one, or with what steps write to.
    """
    memory, apart = Memory(), {}
    for p in zeroed:
        name, array = named[p]
        if not isinstance(array, np.ndarray) or not array.flags.writeable:
            raise ValueError(f"{name} is read-only, but zero_grad=True must write to it")
        if isinstance(vectors[p], Copied):
            apart[p] = np.asarray(array)  # for another class may refuse zeros when the step is taken
        else:
            memory.add(name, vectors[p])
    others = {p: vector for p, vector in vectors.items() if p not in zeroed and not isinstance(vector, Copied)}
    for p, vector in others.items():
        if other := memory.overlapped(vector):
            raise ValueError(f"{other} and {named[p][0]} overlap in memory, but zero_grad=True writes to the first")
    for p, array in apart.items():
        written = [(q.name, each) for q in vectors for each in (q.array, *q.written())]
        for name, each in [*written, *((named[q][0], named[q][1]) for q in vectors if q is not p)]:
            if np.shares_memory(array, each):
                raise ValueError(f"{named[p][0]} and {name} overlap in memory, but zero_grad=True writes to the first")
    return list(apart.values())
