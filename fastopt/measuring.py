"""Sums over the elements of one parameter, by a kernel that only reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import Rule, Variant, kind_of
from fastopt.engine.kernel import Kernel
from fastopt.parameters import Parameter


def summed(
    p: Parameter, measure: Rule, arrays: tuple[NDArray[Any], ...], g: NDArray[Any], lr: float, coefficients: tuple[Any, ...]
) -> NDArray[Any]:
    """Run a measure over a parameter.

    Parameters
    ----------
    p : Parameter
        Its blocks are summed up, and its rates are used if it has some.
    measure : callable
        ``measure(theta, g, lr, *states, *coefficients)`` gives pairs of numbers, whose products are summed up.
    arrays : tuple of ndarray
        Theta and the states; only read.
    g : ndarray, shape (size,)
        The gradient; only read.
    lr : float
        The rate, where `p` has none of its own.
    coefficients : tuple
        As kernels take them, see `placed`.

    Returns
    -------
    ndarray of float64, shape (products, tensors)
    """
    kernel, coefficients, products = measuring(p, measure, arrays, g.dtype, coefficients)
    run = kernel.run or kernel.prepare()
    run(arrays, g, p.elements.get("lr", lr), coefficients)
    return p.blocks.totals(products)


def measuring(
    p: Parameter, measure: Rule, arrays: tuple[NDArray[Any], ...], gradient: np.dtype[Any], coefficients: tuple[Any, ...]
) -> tuple[Kernel, tuple[Any, ...], NDArray[Any]]:
    """The kernel that runs a measure, all of its coefficients, and where it adds up."""
    products = p.blocks.cleared(_products(measure, 2 + len(arrays) + len(coefficients)))
    coefficients = (*coefficients, p.blocks.bounds, products)
    kernel = p.measure_kernels.get((measure, gradient))
    if kernel is None:
        variant = variant_of(p, measure, arrays, gradient, coefficients)
        kernel = p.measure_kernels[measure, gradient] = Kernel(variant, p.length, len(p.blocks.bounds) - 1)
    return kernel, coefficients, products


def variant_of(
    p: Parameter, rule: Rule, arrays: Sequence[NDArray[Any]], gradient: np.dtype[Any], coefficients: tuple[Any, ...]
) -> Variant:
    """The variant of a rule or a measure that takes these arrays, gradients of this dtype, and such coefficients."""
    theta, *states = map(element_of, arrays)
    g = np.dtype((gradient, theta.shape))
    return Variant(rule, theta, g, tuple(states), tuple(map(kind_of, coefficients)), "lr" in p.elements)


def element_of(array: NDArray[Any]) -> np.dtype[Any]:
    """The dtype of what a loop takes at once: a number, or a pair."""
    return np.dtype((array.dtype, array.shape[1:]))


def placed(coefficients: Sequence[Any], p: Parameter, named: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
    """The coefficients as kernels take them: with arrays in place of names, and those of tensors in their form."""
    placed: list[Any] = []
    for coefficient in coefficients:
        value = named.get(coefficient, coefficient) if isinstance(coefficient, str) else coefficient
        if isinstance(value, str):
            value = p.elements[value]
        elif isinstance(value, np.ndarray):
            value = float(value[0]) if p.tensors == 1 else np.array(value, np.float64).reshape(-1, 1)
        placed.append(value)
    has_tensors = any(kind_of(value) == "tensors" for value in placed)
    return (*placed, p.blocks.tensors) if has_tensors else tuple(placed)


@functools.cache
def _products(measure: Rule, arguments: int) -> int:
    """How many products a measure sums up."""
    with np.errstate(all="ignore"):
        return len(measure(*[np.float64(1.0)] * arguments))
