"""Values that rules compute: chosen by comparisons, and taken apart, in compiled code and on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.np.numpy_support import as_dtype

from fastopt.engine.jitable import implementation_of, jitable
from fastopt.engine.pairs import Pair, PairType, overload_for_parts, pair, pair_of, x_of, y_of


def first(values: Any) -> Any:
    """The first value of a tuple, or the only one."""
    return values[0] if isinstance(values, tuple) else values


@implementation_of(first)
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


@implementation_of(select)
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


@jitable
def at_least(x: Any, least: Any) -> Any:
    """``x``, or ``least`` where it is below that. NaN in ``x`` stays NaN."""
    return select(x < least, least, x)


@jitable
def at_most(x: Any, most: Any) -> Any:
    """``x``, or ``most`` where it is above that. NaN in ``x`` stays NaN."""
    return select(x > most, most, x)


def clipped(x: Any, least: Any, most: Any) -> Any:
    """The number in ``[least, most]`` that is next to ``x``; of pairs the one whose modulus is. NaN stays NaN."""
    return _next_modulus(x, least, most) if _is_of_moduli(Pair, x, least, most) else at_most(at_least(x, least), most)


@implementation_of(clipped)
def _clipped(x: Any, least: Any, most: Any) -> Callable[..., Any]:
    if _is_of_moduli(PairType, x, least, most):
        return lambda x, least, most: _next_modulus(x, least, most)
    return lambda x, least, most: at_most(at_least(x, least), most)


def _is_of_moduli(kind: type, x: Any, least: Any, most: Any) -> bool:
    """Whether real limits are those of a pair, as a whole; pairs limit its parts."""
    return isinstance(x, kind) and not isinstance(least, kind) and not isinstance(most, kind)


@jitable
def _next_modulus(x: Any, least: Any, most: Any) -> Any:
    modulus, direction = _polar(x)
    near = at_most(at_least(modulus, least), most)
    return select(near == modulus, x, near * direction)


@jitable
def _polar(x: Any) -> Any:
    """The modulus of a pair, and the pair of modulus 1 in its direction, that of 1 where it is next to 0."""
    # The larger part is taken out first, so that no square is too large, or too small; and divisions are what costs here.
    larger, one = at_least(np.abs(x.x), np.abs(x.y)), one_like(x.x)
    scaled = select(larger < tiny_like(larger), pair_of(one, zero_like(one)), one / larger * x)
    length = np.abs(scaled)
    return larger * length, one / length * scaled


@jitable
def soft_thresholded(x: Any, least: Any) -> Any:
    """``x``, closer to zero by ``least``, and zero where it is within that; pairs keep their direction. NaN stays NaN."""
    return x - clipped(x, -least, least)


def held(theta: Any, g: Any, zero: Any, least: Any, most: Any) -> Any:
    """The gradient without the part that leads out of ``[least, most]``, where theta is at one of these bounds."""
    return (_held_modulus if _is_of_moduli(Pair, theta, least, most) else _held_number)(theta, g, zero, least, most)


@implementation_of(held)
def _held(theta: Any, g: Any, zero: Any, least: Any, most: Any) -> Callable[..., Any]:
    if _is_of_moduli(PairType, theta, least, most):
        return lambda theta, g, zero, least, most: _held_modulus(theta, g, zero, least, most)
    return lambda theta, g, zero, least, most: _held_number(theta, g, zero, least, most)


@jitable
def _held_number(theta: Any, g: Any, zero: Any, least: Any, most: Any) -> Any:
    inward = select(theta > least, g, at_most(g, zero))
    return select(theta < most, inward, at_least(inward, zero))


@jitable
def _held_modulus(theta: Any, g: Any, zero: Any, least: Any, most: Any) -> Any:
    modulus, direction = _polar(theta)
    # A number that was moved to a bound has this modulus but for rounding.
    rounding = several_eps_like(modulus)
    is_inside = modulus + rounding * modulus < most
    is_outside = modulus - rounding * modulus > least
    radial = direction * g
    outward = select(is_inside, zero, at_most(radial, zero)) + select(is_outside, zero, at_least(radial, zero))
    # The rest is along the bound. To subtract would leave rounding in all directions, which many rules make whole steps of.
    along = pair_of(-direction.y, direction.x)
    rest = along * g
    rest = select(np.abs(rest) <= rounding * np.abs(radial), zero, rest) * along
    # At 0 no direction leads outward; but where nothing else is allowed, all do.
    return select(modulus == zero, select(most > zero, g, zero_like(g)), select(outward == zero, g, rest))


def with_first(value: Any, values: Any) -> Any:
    """The same values with another first one."""
    return (value, *values[1:]) if isinstance(values, tuple) else value


@implementation_of(with_first)
def _with_first(value: Any, values: Any) -> Callable[..., Any]:
    if isinstance(values, types.BaseTuple):
        return lambda value, values: (value, *values[1:])
    return lambda value, values: value


def insert_second(value: Any, values: Any) -> Any:
    """The same values with another one after the first."""
    return (values[0], value, *values[1:]) if isinstance(values, tuple) else (values, value)


@implementation_of(insert_second)
def _insert_second(value: Any, values: Any) -> Callable[..., Any]:
    if isinstance(values, types.BaseTuple):
        return lambda value, values: (values[0], value, *values[1:])
    return lambda value, values: (values, value)


def _constant(of_dtype: Callable[[Any], Any], doc: str) -> Callable[[Any], Any]:
    """A function that gives a constant in the dtype of its argument, of both parts of a pair."""

    def constant(x: Any) -> Any:
        return Pair(constant(x.x), constant(x.y)) if isinstance(x, Pair) else np.full_like(x, of_dtype(x.dtype))

    def in_compiled_code(x: Any) -> Callable[..., Any] | None:
        if not isinstance(x, types.Float):
            return None
        value = as_dtype(x).type(of_dtype(as_dtype(x)))
        return lambda x: value

    constant.__doc__ = doc
    implementation_of(constant)(in_compiled_code)
    overload_for_parts(constant, 1)
    return constant


zero_like = _constant(lambda dtype: 0, "Zero in the dtype of a number.")
one_like = _constant(lambda dtype: 1, "One in the dtype of a number.")
tiny_like = _constant(lambda dtype: np.finfo(dtype).tiny, "The least normal number of a dtype.")
several_eps_like = _constant(lambda dtype: 8 * np.finfo(dtype).eps, "More than some roundings of numbers of a dtype.")


def flushed(values: Any) -> Any:
    """The same values, with zero in place of subnormal numbers."""
    if isinstance(values, tuple):
        return tuple(map(flushed, values))
    if isinstance(values, Pair):
        return Pair(flushed(values.x), flushed(values.y))
    return np.where(np.abs(values) < tiny_like(values), zero_like(values), values)


@implementation_of(flushed)
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


overload_for_parts(flushed, 1)
