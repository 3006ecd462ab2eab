"""What functions answer, checked: values and gradients, and whether they are finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS
from fastopt.description.hyperparameters import real

LENGTH_FOR_BLAS = 4096  # OpenBLAS begins to share work above 10,000


def pair_of(answer: Any) -> tuple[Any, Any]:
    """A value and a gradient."""
    try:
        value, g = answer
    except (TypeError, ValueError):
        raise TypeError(f"fun must give a pair, the objective and its gradient, as jac=True says; got {answer!r}") from None
    return value, g


def number_of(value: Any, name: str) -> float:
    """An objective as a number: arrays and lists of one element are, too."""
    if isinstance(value, float):  # NumPy's float64, too
        return value
    shape = getattr(value, "shape", ())
    if len(shape) and math.prod(shape) == 1 and not np.ma.is_masked(value):
        value = value.item()
    elif isinstance(value, list) and len(value) == 1:
        (value,) = value
    try:
        return real(name, value)
    except TypeError:
        hint = "; jac=True says that it gives the gradient, too" if isinstance(value, tuple) and len(value) == 2 else ""
        got = f"an array of shape {tuple(shape)}" if len(shape) and math.prod(shape) != 1 else repr(value)
        raise TypeError(f"{name} must give a real number, got {got}{hint}") from None


def gradient_of(g: Any, name: str, x: NDArray[Any]) -> NDArray[Any]:
    """A gradient as steps take it.

    Parameters
    ----------
    g : array-like
        With as many elements as there are variables, in any shape: SciPy takes ``(1, n)``, too.
    name : str
        How messages call who gave it.
    x : ndarray
        The variables, of the dtype in which gradients are taken unless they have a floating one of their own.
    """
    # First the way of nearly all: a vector of this dtype.
    if type(g) is np.ndarray and g.dtype is x.dtype and g.shape == x.shape and g.flags.c_contiguous:
        return g
    array = _array(g, name, x.dtype.kind == "c")
    if array.size != x.size:
        raise ValueError(f"{name} must give a gradient of {x.size} elements, got one of shape {array.shape}")
    if array.dtype not in (COMPLEX if x.dtype.kind == "c" else FLOATS):
        array = array.astype(x.dtype)
    return array.reshape(x.shape)


def _array(g: Any, name: str, is_complex: bool) -> NDArray[Any]:
    """A gradient as an array of numbers."""
    if np.ma.is_masked(g):
        raise TypeError(f"{name} must give a gradient without a mask, got {g!r}")
    try:
        array = np.asarray(g)
    except (TypeError, ValueError, RuntimeError):  # a tensor that is part of a graph, or lists of several lengths
        raise TypeError(f"{name} must give a gradient that is an array, got {g!r}") from None
    if array.dtype.kind == "O" and array.ndim:
        return np.array([real(f"{name}: element {i} of the gradient", each) for i, each in enumerate(array.flat)])
    if array.dtype.kind not in ("biufc" if is_complex else "biuf") and array.dtype.name != "bfloat16":
        got = array.dtype if array.dtype != object else repr(g)
        raise TypeError(f"{name} must give a gradient of {'' if is_complex else 'real '}numbers, got {got}")
    return array


@np.errstate(all="ignore")
def product(x: NDArray[Any], g: NDArray[Any]) -> Any:
    """The sum of products, which shows in one pass whether both are finite; only where it is too large nothing is known."""
    # For long vectors a threaded BLAS would take other cores, and let them wait in loops when the step comes.
    return x.dot(g) if x.size <= LENGTH_FOR_BLAS else np.einsum("i,i->", x, g)


def what_is_not(x: NDArray[Any], g: NDArray[Any], value: float | None, mask: NDArray[Any] | None) -> str:
    """What is not finite, in words; nothing if all is. What a mask leaves out doesn't count."""
    for what, array in (("x", x), ("the gradient", g)):
        wrong = np.flatnonzero(~np.isfinite(array) if mask is None else ~np.isfinite(array) & mask)
        if wrong.size:
            return f"element {wrong[0]} of {what} is {array[wrong[0]]}"
    return "" if value is None or math.isfinite(value) else f"the objective is {value}"
