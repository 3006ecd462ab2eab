"""What rules return: one value or a tuple of several, to be taken apart, in compiled code and on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from fastopt.engine.pairs import Pair, PairType, overload_for_parts, pair


def first(values: Any) -> Any:
    """The first value of a tuple, or the only one."""
    return values[0] if isinstance(values, tuple) else values


@overload(first, strict=False)
def _first(values: Any) -> Callable[..., Any]:
    return (lambda values: values[0]) if isinstance(values, types.BaseTuple) else lambda values: values


def select(mask: Any, new: Any, old: Any) -> Any:
    """The new values where the mask is true, else the old ones: one for each of the new, or one for all of them."""
    if isinstance(new, Pair):
        if isinstance(mask, Pair):
            return Pair(select(mask.x, new.x, old.x), select(mask.y, new.y, old.y))
        return Pair(*(select(mask, getattr(new, part), getattr(old, part, old)) for part in ("x", "y")))
    if not isinstance(new, tuple):
        return np.where(mask, new, first(old))
    olds = old if isinstance(old, tuple) else (old,) * len(new)
    return tuple(select(mask, n, o) for n, o in zip(new, olds, strict=False))


@overload(select, strict=False)
def _select(mask: Any, new: Any, old: Any) -> Callable[..., Any]:
    if isinstance(new, PairType):
        if isinstance(mask, PairType):
            return lambda mask, new, old: pair(new.x if mask.x else old.x, new.y if mask.y else old.y)
        if isinstance(old, PairType):
            return lambda mask, new, old: pair(new.x if mask else old.x, new.y if mask else old.y)
        if isinstance(old, types.BaseTuple):
            return lambda mask, new, old: select(mask, new, old[0])
        return lambda mask, new, old: pair(new.x if mask else old, new.y if mask else old)
    if not isinstance(new, types.BaseTuple):
        return lambda mask, new, old: new if mask else first(old)
    if len(new) == 0:
        return lambda mask, new, old: ()
    if isinstance(old, types.BaseTuple):
        return lambda mask, new, old: (select(mask, new[0], old[0]), *select(mask, new[1:], old[1:]))
    return lambda mask, new, old: (select(mask, new[0], old), *select(mask, new[1:], old))


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
