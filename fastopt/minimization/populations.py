"""Many starts of one minimization, stepped together in one buffer: what is known of each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import Flat, flatten
from fastopt.minimization.points import start_of
from fastopt.minimization.stopping import Told
from fastopt.optimizer import Optimizer

Array = NDArray[Any]


def starts_of(starts: Any) -> Array:
    """A copy of the starts, a row for each."""
    rows = start_of(starts, "starts")
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"starts must be an array with a row for each start, got one of shape {rows.shape}")
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"starts must be finite, which start {int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])} is not")
    return rows


def buffer_of(rows: Array) -> Flat:
    """All starts in one buffer, in which each is a tensor of its own."""
    return flatten([*rows])


class Population:
    """What is known of each start.

    Parameters
    ----------
    told : Told
        What is known of the buffer.
    count : int
        How many starts there are.
    optimizer : Optimizer
        What steps them.

    Attributes
    ----------
    values : ndarray of float64, shape (count,)
        The objective of each, infinite where it was lost.
    """

    memory = ("values", "_lost")

    def __init__(self, told: Told, count: int, optimizer: Optimizer) -> None:
        group = optimizer.param_groups[0]
        if optimizer.clip_norm is not None or (optimizer.measure(group) is not None and not optimizer.per_tensor):
            name = type(optimizer).__name__
            raise ValueError(f"starts must not depend on each other, but steps of {name} depend on norms over all of them here")
        self._told = told
        self.shape = (count, told.x.size // count)
        self.values = np.full(count, np.inf)
        self._lost = np.zeros(count, bool)

    def see(self) -> None:
        """Nothing: what was told is looked at before."""

    def checked(self, values: Any) -> Array:
        """The values of all starts."""
        array = np.asarray(values, np.float64)
        if array.shape != self.values.shape:
            raise ValueError(f"tell must give a value for each of {self.shape[0]} starts, got an array of shape {array.shape}")
        return array

    def wrong(self, values: Array, g: Array) -> str:
        """What is not finite of those starts that are not lost yet, in words."""
        rows = np.flatnonzero(self._astray(values, g))
        return f"start {rows[0]}, its value or its gradient is not finite" if rows.size else ""

    def _astray(self, values: Array, g: Array) -> Array:
        finite = np.isfinite(values) & np.isfinite(g.reshape(self.shape)).all(axis=1)
        astray: Array = ~(finite & np.isfinite(self._told.x.reshape(self.shape)).all(axis=1)) & ~self._lost
        return astray

    def take(self, values: Array, g: Array) -> tuple[float, Array]:
        """The least value, and the gradient; starts where something is not finite are lost, and stay where they were.

        The least value is infinite if all are lost.
        """
        self._lost |= self._astray(values, g)
        self.values = np.where(self._lost, np.inf, values)
        if self._lost.any():
            g = np.where(self._lost[:, None], 0, g.reshape(self.shape)).astype(g.dtype).reshape(-1)
            self.restore()
        row = int(self.values.argmin())
        self._told.part = slice(row * self.shape[1], (row + 1) * self.shape[1])
        return float(self.values[row]), g

    def restore(self) -> bool:
        """Take back a step of those that are lost, and tell whether there are some."""
        if is_any := bool(self._lost.any()):
            x, before = (array.reshape(self.shape) for array in (self._told.x, self._told.before))
            x[self._lost] = before[self._lost]
        return is_any

    def fields(self) -> dict[str, Any]:
        """What a result has of all starts, as that of SciPy's differential evolution."""
        told = self._told
        x = told.before if told.gradient is None else told.x
        return {"population": x.reshape(self.shape).copy(), "population_energies": self.values.copy()}
