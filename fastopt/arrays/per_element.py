"""Arrays that come nested as the parameters and in their shapes: rates, masks, bounds, and where to write copies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.arrays.flat import Flat, array_of
from fastopt.arrays.layout import COMPLEX, FLOATS, NUMBERS, aligned_zeros, parts, require_array
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.tree import leaves, map_leaves, matching_leaves, with_leaves
from fastopt.description.hyperparameters import common_range, real
from fastopt.engine.formats import encoded

# Of arrays that are no rates.
DTYPES: Mapping[str, Sequence[np.dtype[Any]]] = {"mask": (np.dtype(np.bool_),), "bounds": (*FLOATS, *COMPLEX)}


def is_tree(value: Any) -> bool:
    """Whether a hyper-parameter has the form of an array for each element, or of a tree of them."""
    return isinstance(value, (Flat, Mapping, list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def checked_tree(parameters: Sequence[Parameter], params: Any, memory: Memory, key: str, value: Any) -> Any:
    """What a hyper-parameter is that has arrays for each element; None if it has none."""
    if value is None:
        return None
    if key == "bounds":
        return checked_bounds(parameters, params, value)
    if key == "copy_to":
        return checked_copies(parameters, params, memory, value)
    return checked_arrays(parameters, params, key, value)


def checked_bounds(parameters: Sequence[Parameter], params: Any, value: Any) -> tuple[Any, Any]:
    """The lower and the upper bound, each a number or read-only arrays in the shapes of the parameters."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"bounds must be None, or a lower and an upper bound, got {value!r}")
    within = common_range(p.dtype for p in parameters)
    sides: list[Any] = []
    for side, unbounded in zip(value, (-np.inf, np.inf), strict=True):
        if isinstance(side, (complex, np.complexfloating)):  # a bound for each part, which only arrays have
            side = with_leaves(params, [np.full(p.shape, side, np.complex128) for p in parameters])
        if is_tree(side):
            sides.append(checked_arrays(parameters, params, "bounds", side))
        elif math.isnan(number := real("bounds", unbounded if side is None else side)):
            raise ValueError(f"bounds must hold no NaN, got {value!r}")
        else:
            sides.append(within.kept("bounds", number))
    for p, low, high in zip(parameters, *(_for_each(parameters, side) for side in sides), strict=True):
        if not np.all(np.less_equal(low, high)):  # nor with NaN
            raise ValueError(f"bounds must have no lower bound above the upper one, which those of {p.name} have")
        if p.is_paired and np.any(np.less(high, 0)):
            raise ValueError(f"bounds must have no upper bound below 0 for moduli, which those of {p.name} have")
    return sides[0], sides[1]


def _for_each(parameters: Sequence[Parameter], side: Any) -> list[Any]:
    """One of the bounds for each parameter, as a number or a vector."""
    if not is_tree(side):
        return [side] * len(parameters)
    arrays = [array_of(leaf) for _, leaf in leaves(side, "")]
    return [p.for_each_part(a.reshape(-1, order=p.order)) for p, a in zip(parameters, arrays, strict=True)]


def checked_copies(parameters: Sequence[Parameter], params: Any, memory: Memory, tree: Any) -> Any:
    """Arrays to write copies of the parameters to, nested as these are."""
    memory = memory.copy()
    for p in parameters:
        if p.copy is not None:
            memory.remove(p.copy)
    for p, (name, leaf) in zip(parameters, matching_leaves(params, tree, "copy_to"), strict=True):
        array = require_array(name, p.unwrap(name, leaf), NUMBERS)
        p.require_writable(name, array)
        memory.add(name, array)
    return map_leaves(lambda leaf: leaf, tree)


def checked_arrays(parameters: Sequence[Parameter], params: Any, key: str, tree: Any) -> Any:
    """Read-only copies of arrays in the shapes of the parameters, nested as these are."""
    copies = []
    for p, (name, leaf) in zip(parameters, matching_leaves(params, tree, key), strict=True):
        array = require_array(name, p.unwrap(name, leaf), DTYPES.get(key, FLOATS))
        if array.shape != p.shape:
            raise ValueError(f"{name} must have the shape {p.shape} of {p.name}, got {array.shape}")
        if array.dtype.kind == "c" and (p.is_paired or not p.is_complex):
            raise TypeError(f"{name} must be real here, got {array.dtype}")
        dtype = {"b": np.dtype(np.bool_), "c": p.array.dtype}.get(array.dtype.kind, p.dtype)
        vector = aligned_zeros(array.size, dtype)
        with np.errstate(all="ignore"):  # what doesn't fit is infinite, and refused as such
            p.shaped(vector)[...] = array
        if key == "bounds" and np.any(np.isnan(vector)):
            raise ValueError(f"{name} must hold no NaN")
        if key != "bounds" and not np.all((vector >= 0) & (vector < np.inf)):
            raise ValueError(f"{name} must hold finite numbers of at least 0, in the parameter's dtype {vector.dtype}")
        if not np.can_cast(array.dtype, vector.dtype, "safe"):
            _require_kept(name, array, p.shaped(vector))
        owner = vector.base if isinstance(vector.base, np.ndarray) else vector
        owner.flags.writeable = vector.flags.writeable = False  # the owner too, or users could make it writable again
        copies.append(p.view(vector))
    return with_leaves(params, copies)


def _require_kept(name: str, array: NDArray[Any], rounded: NDArray[Any]) -> None:
    """Raise ValueError if rounding has made a number zero that was none, or infinite that was finite."""
    for part in ("real", "imag") if array.dtype.kind == "c" else ("real",):
        given, made = getattr(array, part), getattr(rounded, part)
        lost = np.flatnonzero((made == 0) & (given != 0) | np.isinf(made) & np.isfinite(given))
        if lost.size:
            index = tuple(map(int, np.unravel_index(lost[0], given.shape)))
            what = f"{float(given[index])} at index {index}, which is {'0' if made[index] == 0 else 'infinite'} there"
            raise ValueError(f"{name} must be within the range of {made.dtype}, the parameter's dtype, got {what}")


def place(parameters: Sequence[Parameter], name: str, tree: Any) -> None:
    """Give each parameter its array of a tree under a name, as a vector; with None, no longer."""
    for p in parameters:
        p.elements.pop(name, None)
    if tree is not None:
        for p, (path, array) in zip(parameters, leaves(tree, name), strict=True):
            p.elements[name] = p.for_each_part(p.unwrap(path, array).reshape(-1, order=p.order))


def place_copies(parameters: Sequence[Parameter], tree: Any, memory: Memory) -> None:
    """Let steps write the parameters to these arrays, too; with None, no longer."""
    for p in parameters:
        if p.copy is not None:
            memory.remove(p.copy)
            p.copy = None
    if tree is not None:
        for p, (name, leaf) in zip(parameters, leaves(tree, "copy_to"), strict=True):
            p.copy = parts(np.asarray(array_of(leaf)).reshape(-1, order=p.order))
            memory.add(name, p.copy)


def fill_copies(parameters: Sequence[Parameter]) -> None:
    """Bring the copies up to date."""
    for p in parameters:
        if p.copy is not None:
            p.copy[...] = encoded(masters.values(p), p.copy.dtype)
