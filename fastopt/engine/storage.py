"""Load and store one element of whatever a kernel was given.

The loop hands over arrays, scalars, and (nested) tuples of both; Numba picks the implementation by type while it
compiles. This is the only place that knows how a number lies in memory, so another storage format is one more case here:
neither the rules nor the loop would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.extending import overload


def load(source: Any, i: Any, dtype: Any) -> Any:
    """Element ``i`` of an array, a scalar itself, or a tuple of either, as ``dtype`` (compiled code only).

    A mask's booleans stay what they are.
    """
    raise NotImplementedError("load exists in compiled code only")


def store(destination: Any, i: Any, values: Any) -> Any:
    """Write ``values`` to element ``i`` of an array or a tuple of arrays (compiled code only)."""
    raise NotImplementedError("store exists in compiled code only")


@overload(load, strict=False)  # annotations of the implementations need not match
def _load(source: Any, i: Any, dtype: Any) -> Callable[..., Any]:
    if isinstance(source, types.BaseTuple):
        if len(source) == 0:
            return lambda source, i, dtype: ()
        return lambda source, i, dtype: (load(source[0], i, dtype), *load(source[1:], i, dtype))
    if isinstance(source, types.Array):
        if source.dtype == types.boolean:
            return lambda source, i, dtype: source[i]
        return lambda source, i, dtype: dtype(source[i])
    return lambda source, i, dtype: dtype(source)


def of_tensor(coefficients: Any, s: Any) -> Any:
    """The coefficients with the number of tensor ``s`` in place of each array of two dimensions (compiled code only)."""
    raise NotImplementedError("of_tensor exists in compiled code only")


@overload(of_tensor, strict=False)
def _of_tensor(coefficients: Any, s: Any) -> Callable[..., Any]:
    if len(coefficients) == 0:
        return lambda coefficients, s: ()
    if isinstance(coefficients[0], types.Array) and coefficients[0].ndim == 2:
        return lambda coefficients, s: (coefficients[0][s, 0], *of_tensor(coefficients[1:], s))
    return lambda coefficients, s: (coefficients[0], *of_tensor(coefficients[1:], s))


@overload(store, strict=False)
def _store(destination: Any, i: Any, values: Any) -> Callable[..., Any]:
    if isinstance(destination, types.Array):
        # An implicit cast would hide a rule that left the compute dtype, and a float32 kernel would run at half its speed.
        if values != destination.dtype:
            raise TypingError(f"the rule returned {values} where it was given {destination.dtype}")

        def store_element(destination: Any, i: Any, values: Any) -> None:
            destination[i] = values

        return store_element
    returned = len(values) if isinstance(values, types.BaseTuple) else 1
    if returned != len(destination):
        raise TypingError(f"the rule returned {returned} values where theta and {len(destination) - 1} states are stored")
    if not isinstance(values, types.BaseTuple):
        return lambda destination, i, values: store(destination[0], i, values)
    if len(destination) == 1:
        return lambda destination, i, values: store(destination[0], i, values[0])

    def store_tuple(destination: Any, i: Any, values: Any) -> None:
        store(destination[0], i, values[0])
        store(destination[1:], i, values[1:])

    return store_tuple
