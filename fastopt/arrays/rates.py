"""Learning rates for every element that take the place of those before them, without a new plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import array_of
from fastopt.arrays.layout import FLOATS
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import leaves, matching_leaves

# What infinity is where the bits of a number are read as an integer.
INFINITIES = {dtype: np.array(np.inf, dtype).view(f"u{dtype.itemsize}")[()] for dtype in FLOATS}


class NewRates:
    """Rates that are as they should be, to be written where those before them lie, which the plan knows.

    Who assigns rates at every step so pays for one look at them and one copy, and for nothing that is made anew.

    Parameters
    ----------
    parameters : sequence of Parameter
    pairs : sequence of tuple of two ndarray
        For each parameter the array that users see, which is read-only, and the new one.
    """

    def __init__(self, parameters: Sequence[Parameter], pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        self._parameters, self._pairs = parameters, pairs

    def write(self) -> None:
        """Copy them."""
        for p, (own, new) in zip(self._parameters, self._pairs, strict=True):
            owner = own if own.base is None else own.base
            owner.flags.writeable = own.flags.writeable = True
            np.copyto(own, new)
            own.flags.writeable = owner.flags.writeable = False
            if p.elements["lr"].size != own.size:  # of complex parameters, for both parts
                p.elements["lr"][...] = p.for_each_part(own.reshape(-1, order=p.order))


def new_rates(parameters: Sequence[Parameter], params: Any, own: Any, tree: Any) -> NewRates | None:
    """Rates to take the place of own ones, if they are arrays as these are, of finite numbers of at least 0."""
    if not (is_tree(own) and is_tree(tree)):
        return None
    pairs = []
    found = matching_leaves(params, tree, "lr")
    for p, (name, leaf), (_, own_leaf) in zip(parameters, found, leaves(own, "lr"), strict=True):
        array, kept = p.unwrap(name, leaf), array_of(own_leaf)
        if type(array) is not np.ndarray or array.dtype is not kept.dtype or array.shape != kept.shape:
            return None
        # What is read-only may be an own array of another parameter, which then would be written to before it is read.
        if (len(parameters) > 1 and not array.flags.writeable) or not _are_sizes(array):
            return None
        pairs.append((kept, array))
    return NewRates(parameters, pairs)


def _are_sizes(array: NDArray[Any]) -> bool:
    """Whether all are finite and positive or 0, by one look at each: the bits of such numbers are integers below infinity's."""
    if array.dtype not in INFINITIES:
        return False
    infinity = INFINITIES[array.dtype]
    return bool(array.view(infinity.dtype).max(initial=0) < infinity)
