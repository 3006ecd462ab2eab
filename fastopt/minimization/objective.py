"""The function that is minimized, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.arrays.layout import FLOATS
from fastopt.description.hyperparameters import real
from fastopt.minimization.differences import differences


class Objective:
    """The function and its gradient at a point that moves, and how often they were called.

    Parameters
    ----------
    fun, jac, args
        As `minimize` takes them.
    x : ndarray, shape (n,)
        The point.
    sides : pair of ndarray, shape (n,), or None
        Its bounds.
    needs_value : bool
        Whether somebody looks at the function's value in each step.
    """

    def __init__(self, fun: Callable[..., Any], jac: Any, args: Any, x: Any, sides: Any, needs_value: bool) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if not (jac is None or isinstance(jac, (bool, np.bool_)) or callable(jac)):
            raise TypeError(f"jac must be callable, True or None, got {jac!r}")
        self._fun, self._jac = fun, bool(jac) if isinstance(jac, (bool, np.bool_)) else jac
        self._args = args if isinstance(args, tuple) else (args,)
        self._x = x.view()  # read-only: a function that changed it would lead the optimizer astray
        self._x.flags.writeable = False
        self._sides = sides
        self._needs_value = needs_value
        self.nfev = self.njev = 0

    def __call__(self, needs_value: bool = False) -> tuple[float, Any]:
        """The value, NaN if nobody needs it, and the gradient."""
        self.njev += 1
        if self._jac is True:
            self.nfev += 1
            value, g = _pair(self._fun(self._x, *self._args))
            return _number(value), self._vector(g, "fun with jac=True")
        if callable(self._jac):
            value = self._value(self._x) if self._needs_value or needs_value else math.nan
            return value, self._vector(self._jac(self._x, *self._args), "jac")
        value = self._value(self._x)
        return value, differences(self._value, self._x, value, self._sides)

    def projected(self, g: Any) -> Any:
        """The gradient, or with bounds how far a step along it can go."""
        return g if self._sides is None else self._x - np.clip(self._x - g, *self._sides)

    def _value(self, x: Any) -> float:
        self.nfev += 1
        return _number(self._fun(x, *self._args))

    def _vector(self, g: Any, name: str) -> Any:
        """A gradient as steps take it."""
        # First the way of nearly all: a vector of this dtype with memory of its own.
        x = self._x
        if type(g) is np.ndarray and g.dtype is x.dtype and g.shape == x.shape and g.flags.owndata:
            return g
        array = _array(g, name)
        if array.size != x.size:
            raise ValueError(f"{name} must give a gradient of {x.size} elements, got one of shape {array.shape}")
        if array.dtype not in FLOATS:
            array = array.astype(x.dtype)
        array = array.reshape(-1)
        return array.copy() if np.may_share_memory(array, x) else array


def _pair(answer: Any) -> Any:
    """A value and a gradient."""
    try:
        value, g = answer
    except (TypeError, ValueError):
        raise TypeError(f"fun must give a pair, the objective and its gradient, as jac=True says; got {answer!r}") from None
    return value, g


def _array(g: Any, name: str) -> Any:
    """A gradient as an array of real numbers."""
    if np.ma.is_masked(g):
        raise TypeError(f"{name} must give a gradient without a mask, got {g!r}")
    try:
        array = np.asarray(g)
    except (TypeError, ValueError, RuntimeError):  # a tensor that is part of a graph, or lists of several lengths
        raise TypeError(f"{name} must give a gradient that is an array, got {g!r}") from None
    if array.dtype.kind == "O" and array.ndim:
        return np.array([real(f"{name}: element {i} of the gradient", each) for i, each in enumerate(array.flat)])
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must give a gradient of real numbers, got {array.dtype if array.dtype != object else repr(g)}")
    return array


def _number(value: Any) -> float:
    """An objective as a number: arrays and lists of one element are, too."""
    if isinstance(value, float):  # NumPy's float64, too
        return value
    shape = getattr(value, "shape", ())
    if len(shape) and math.prod(shape) == 1 and not np.ma.is_masked(value):
        value = value.item()
    elif isinstance(value, list) and len(value) == 1:
        (value,) = value
    try:
        return real("fun", value)
    except TypeError:
        hint = "; jac=True says that it gives the gradient, too" if isinstance(value, tuple) and len(value) == 2 else ""
        got = f"an array of shape {tuple(shape)}" if len(shape) and math.prod(shape) != 1 else repr(value)
        raise TypeError(f"fun must give a real number, got {got}{hint}") from None
