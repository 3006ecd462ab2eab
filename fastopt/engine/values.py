"""Values that rules compute: chosen by comparisons, and taken apart, in compiled code and on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable
from numba.np.numpy_support import as_dtype

from fastopt.engine.pairs import Pair, PairType, overload_for_parts, pair, x_of, y_of


def first(values: Any) -> Any:
    """The first value of a tuple, or the only one."""
    return values[0] if isinstance(values, tuple) else values


@overload(first, strict=False)
def _first(values: Any) -> Callable[..., Any]:
    return (lambda values: values[0]) if isinstance(values, types.BaseTuple) else lambda values: values


def select(mask: Any, new: Any, old: Any) -> Any:
    """The new values where the mask is true, else the old ones: one for each of the new, or one for all of them."""
    if isinstance(new, tuple):
        olds = old if isinstance(old, tuple) else (old,) * len(new)
        return tuple(select(mask, n, o) for n, o in zip(new, olds, strict=False))
    values = mask, new, first(old)
    if any(isinstance(value, Pair) for value in values):
        return Pair(*(np.where(*(getattr(value, part, value) for value in values)) for part in ("x", "y")))
    return np.where(*values)


@overload(select, strict=False)
def _select(mask: Any, new: Any, old: Any) -> Callable[..., Any]:
    if not isinstance(new, types.BaseTuple):
        if isinstance(old, types.BaseTuple):
            return lambda mask, new, old: select(mask, new, old[0])
        if any(isinstance(value, PairType) for value in (mask, new, old)):
            return lambda mask, new, old: pair(x_of(new) if x_of(mask) else x_of(old), y_of(new) if y_of(mask) else y_of(old))
        return lambda mask, new, old: new if mask else old
    if len(new) == 0:
        return lambda mask, new, old: ()
    if isinstance(old, types.BaseTuple):
        return lambda mask, new, old: (select(mask, new[0], old[0]), *select(mask, new[1:], old[1:]))
    return lambda mask, new, old: (select(mask, new[0], old), *select(mask, new[1:], old))


# Each of these is one comparison and one selection, a single instruction for a whole vector register, where `np.maximum` looks
# for NaN in both operands. A comparison with NaN is false, so the operand that is taken then is the one whose NaN stays.


@register_jitable
def at_least(x: Any, least: Any) -> Any:
    """``x``, or ``least`` where it is below that. NaN in ``x`` stays NaN."""
    return select(x < least, least, x)


@register_jitable
def at_most(x: Any, most: Any) -> Any:
    """``x``, or ``most`` where it is above that. NaN in ``x`` stays NaN."""
    return select(x > most, most, x)


@register_jitable
def clipped(x: Any, least: Any, most: Any) -> Any:
    """The number in ``[least, most]`` that is next to ``x``. NaN stays NaN."""
    return at_most(at_least(x, least), most)


@register_jitable
def soft_thresholded(x: Any, least: Any) -> Any:
    """``x``, closer to zero by ``least``, and zero where it is within that. NaN stays NaN."""
    return x - clipped(x, -least, least)


def with_first(value: Any, values: Any) -> Any:
    """The same values with another first one."""
    return (value, *values[1:]) if isinstance(values, tuple) else value


@overload(with_first, strict=False)
def _with_first(value: Any, values: Any) -> Callable[..., Any]:
    if isinstance(values, types.BaseTuple):
        return lambda value, values: (value, *values[1:])
    return lambda value, values: value


def insert_second(value: Any, values: Any) -> Any:
    """The same values with another one after the first."""
    return (values[0], value, *values[1:]) if isinstance(values, tuple) else (values, value)


@overload(insert_second, strict=False)
def _insert_second(value: Any, values: Any) -> Callable[..., Any]:
    if isinstance(values, types.BaseTuple):
        return lambda value, values: (values[0], value, *values[1:])
    return lambda value, values: (values, value)


def zero_like(x: Any) -> Any:
    """Zero in the dtype of a number."""
    return Pair(zero_like(x.x), zero_like(x.y)) if isinstance(x, Pair) else np.zeros_like(x)


@overload(zero_like, strict=False)
def _zero_like(x: Any) -> Callable[..., Any] | None:
    if not isinstance(x, types.Float):
        return None
    zero = as_dtype(x).type(0)
    return lambda x: zero


def flushed(values: Any) -> Any:
    """The same values, with zero in place of subnormal numbers."""
    if isinstance(values, tuple):
        return tuple(map(flushed, values))
    if isinstance(values, Pair):
        return Pair(flushed(values.x), flushed(values.y))
    return np.where(np.abs(values) < np.finfo(values.dtype).tiny, zero_like(values), values)


@overload(flushed, strict=False)
def _flushed(values: Any) -> Callable[..., Any] | None:
    if isinstance(values, types.BaseTuple):
        if len(values) == 0:
            return lambda values: ()
        return lambda values: (flushed(values[0]), *flushed(values[1:]))
    if not isinstance(values, types.Float):
        return None
    dtype = as_dtype(values).type
    zero, least = dtype(0), np.finfo(dtype).tiny
    return lambda values: zero if np.abs(values) < least else values


overload_for_parts(zero_like, 1)
overload_for_parts(flushed, 1)
