"""Scales: a rate fits all variables only where they are of one size, and eps only gradients of some size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.description.hyperparameters import positive
from fastopt.minimization.bounds import Box
from fastopt.minimization.checkpoints import memories_of
from fastopt.optimizer import Optimizer

Array = NDArray[Any]

WORDS = ("auto", "bounds")


def sizes_of(x_scale: Any, x: Array, bounds: Box | None) -> Array | None:
    """The size of each variable, or of each part of complex ones.

    Parameters
    ----------
    x_scale : None, a number, array-like of shape (n,), "bounds" or "auto"
        Sizes, or where to take them from: how far the bounds are apart; or the same where they are finite, else how large the
        start is, or 1 where that is 0.
    x : ndarray, shape (n,)
        The start.
    bounds : Box or None
    """
    if x_scale is None:
        return None
    theta = parts(x)
    if isinstance(x_scale, str):
        if x_scale not in WORDS:
            raise ValueError(f"x_scale must be numbers, 'auto' or 'bounds', got {x_scale!r}")
        room = np.full(theta.size, np.inf) if bounds is None else bounds.room()
        has_room = np.isfinite(room) & (room > 0)
        if x_scale == "bounds" and not np.all(has_room):
            i = int(np.flatnonzero(~has_room)[0]) // (theta.size // x.size)
            raise ValueError(f"x_scale='bounds' needs two finite bounds of each variable, which variable {i} has not")
        own = np.repeat(np.where(x == 0, 1.0, np.abs(x)), theta.size // max(x.size, 1))
        return np.where(has_room, room, own).astype(theta.dtype)
    expected = f"x_scale must be finite numbers of more than 0, one or for each of {x.size} variables"
    try:
        numbers = np.array(x_scale, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{expected}, got {x_scale!r}") from None
    if numbers.size == 1:
        numbers = np.full(x.shape, numbers.item())
    with np.errstate(all="ignore"):  # what the dtype doesn't have is 0 or infinite
        sizes = np.repeat(numbers.astype(theta.dtype), theta.size // max(x.size, 1))
    if numbers.shape != x.shape or not np.all((sizes > 0) & (sizes < np.inf)):
        raise ValueError(f"{expected}, in their dtype {theta.dtype}, got {x_scale!r}")
    return sizes


def unit_of(g_scale: Any) -> float | None:
    """The unit of gradients; None to take it from the first one."""
    return None if isinstance(g_scale, str) and g_scale == "auto" else positive("g_scale", g_scale)


def scaling_of(own: Mapping[str, Any], stepped: Array, start: Array, bounds: Box | None) -> Scaling | None:
    """The scaling that options ask for, of what is stepped: a start, or all rows of many in one buffer; bounds are of one."""
    if own["x_scale"] is None and own["g_scale"] is None:
        return None
    *many, size = start.shape
    one, rows = stepped[:size], math.prod(many)
    sizes = sizes_of(own["x_scale"], one, bounds)
    sizes = np.tile(np.ones_like(parts(one)) if sizes is None else sizes, rows)
    if isinstance(own["x_scale"], str) and own["x_scale"] == "auto":  # the size that the first start had
        sizes = memories_of(own["state"], start).get(Scaling.__name__, {"found": {"sizes": sizes}})["found"]["sizes"]
    unit = unit_of(1.0 if own["g_scale"] is None else own["g_scale"])
    return Scaling(stepped.copy(), stepped, sizes, unit, None if bounds is None else bounds.repeated(rows))


class Scaling:
    """Steps variables in units of their sizes, with gradients in a unit of their own.

    Parameters
    ----------
    x : ndarray, shape (m,)
        The point in the caller's units.
    stepped : ndarray, shape (m,)
        What the optimizer steps.
    sizes : ndarray
        The size of each part of the variables.
    unit : float or None
        What gradients are divided by; None for the root mean square of the first one.
    bounds : Box or None
        In the caller's units.

    Attributes
    ----------
    x : ndarray, shape (m,)
        The point in the caller's units; it moves.
    bounds : Box or None
        In the units of steps.
    """

    memory = ("found",)

    def __init__(self, x: Array, stepped: Array, sizes: Array, unit: float | None, bounds: Box | None) -> None:
        self.x, self._stepped, self._sizes, self._unit, self._bounds = x, stepped, sizes, unit, bounds
        self.bounds = None if bounds is None else bounds.in_units(sizes)
        self.take()

    @property
    def found(self) -> Mapping[str, Any]:
        """Copies of the sizes, the unit, and the point in the units of steps; who goes on takes what the call hasn't fixed."""
        return {"sizes": self._sizes.copy(), "unit": self._unit, "variables": self._stepped.copy()}

    @found.setter
    def found(self, value: Mapping[str, Any]) -> None:
        if self._unit is None:
            self._unit = value["unit"]
        if np.array_equal(self._sizes, value["sizes"]):  # else it is in other units
            self._stepped[...] = value["variables"]

    def see(self) -> None:
        """Nothing: the unit comes from the first step."""

    def take(self) -> None:
        """Have the point as it is now in the units of steps."""
        np.divide(parts(self.x), self._sizes, out=parts(self._stepped))

    def step(self, optimizer: Optimizer, g: Array) -> None:
        """Take a step, and have the point in the caller's units."""
        g = (parts(g) * self._sizes).view(g.dtype)
        if self._unit is None:
            self._unit = math.sqrt(float(np.mean(np.square(parts(g), dtype=np.float64)))) or 1.0
        count = optimizer.step_count
        try:
            optimizer.step(g, scale=1.0 / self._unit)
        finally:  # for an interrupt may follow the step
            if optimizer.step_count > count:
                self._give()

    def _give(self) -> None:
        """Have what was stepped in the caller's units."""
        np.multiply(parts(self._stepped), self._sizes, out=parts(self.x))
        if self._bounds is not None and self.bounds is not None:
            self._bounds.meet(self.x, self._stepped, self.bounds)
