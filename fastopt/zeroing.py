"""Gradients that a step sets to zero: whether that can be done, and where the pass itself doesn't reach them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.memory import Memory
from fastopt.parameters import Parameter


def require_zeroable(
    vectors: Mapping[Parameter, NDArray[Any]], named: Mapping[Parameter, tuple[str, Any]]
) -> list[NDArray[Any]]:
    """Check that gradients can be set to zero.

    Parameters
    ----------
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
        If a gradient is read-only, or shares memory with another one.
    """
    memory, apart = Memory(), []
    for p, vector in vectors.items():
        name, array = named[p]
        if not isinstance(array, np.ndarray) or not array.flags.writeable:
            raise ValueError(f"{name} is read-only, but zero_grad=True must write to it")
        if p.is_copy(vector):
            apart.append(array)
        else:
            memory.add(name, vector)
    return apart
