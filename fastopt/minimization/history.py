"""What is kept of the way: the best point, and a history with a picture of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.minimization.answers import product
from fastopt.minimization.pictures import axes_of
from fastopt.minimization.stopping import Told


class Best:
    """The point with the least value so far.

    Parameters
    ----------
    told : Told
        What to look at.
    """

    memory = ("value", "x", "gradient")

    def __init__(self, told: Told) -> None:
        self._told = told
        self.value, self.x, self.gradient = math.inf, told.x.copy(), np.zeros_like(told.x)

    def see(self) -> None:
        """Keep the present point, if it is better."""
        told = self._told
        if told.value < self.value:
            self.value, self.x, self.gradient = told.value, told.x[told.part].copy(), told.found[told.part].copy()

    def fields(self) -> Mapping[str, Any]:
        """What a result has of it."""
        return {"x": self.x.copy(), "fun": self.value, "jac": self.gradient.copy()}


class History:
    """The way of a minimization.

    Parameters
    ----------
    told : Told
        What to look at.
    rate : callable
        Gives the rate of the last step.
    every : int
        Of every how many points to keep a copy; 0 for none.

    Attributes
    ----------
    values, norms, rates, times : list of float
        Of each point: the objective, the norm of the gradient, the mean rate of the step that led there, and the seconds since
        the beginning.
    points : list of ndarray
        Every so many of the points, from the start on.
    """

    memory = ("values", "norms", "rates", "times", "points")

    def __init__(self, told: Told, rate: Callable[[], Any], every: int) -> None:
        self._told, self._rate, self._every = told, rate, every
        self.values: list[float] = []
        self.norms: list[float] = []
        self.rates: list[float] = []
        self.times: list[float] = []
        self.points: list[NDArray[Any]] = []
        self._begin = time.monotonic()

    def see(self) -> None:
        """Take note of a point."""
        told = self._told
        g = parts(told.found)
        if self._every and len(self.values) % self._every == 0:
            self.points.append(told.x.copy())
        self.values.append(told.value)
        self.norms.append(math.sqrt(float(product(g, g))))
        self.rates.append(float(np.mean(self._rate())))
        self.times.append(time.monotonic() - self._begin)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.memory}

    def plot(self, axes: Any = None) -> Any:
        """Draw the objective, the norm of the gradient and the rate over the steps.

        Parameters
        ----------
        axes : sequence of three matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        sequence of matplotlib Axes
        """
        axes = axes_of(axes, 3)
        rows = (("objective", self.values), ("norm of the gradient", self.norms), ("learning rate", self.rates))
        for ax, (label, numbers) in zip(axes, rows, strict=True):
            ax.plot(numbers)
            ax.set_ylabel(label)
            if len(numbers) and min(numbers) > 0:
                ax.set_yscale("log")
        axes[-1].set_xlabel("step")
        return axes
