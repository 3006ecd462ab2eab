"""When to stop under noise: values and gradients are drawn, so that one of them says little, and many of them a lot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.minimization.answers import product
from fastopt.minimization.checkpoints import memory_of, remind
from fastopt.minimization.populations import Population
from fastopt.minimization.stopping import PLATEAU, Test, Told

FIRST = 50  # steps of the first window
GROWTH = 1.15  # of the step at which a window ends, against that at which it begins
BLOCKS = 8  # into which a window is cut, so that draws may depend on their neighbours
LEAST_FALL = 1.0  # in standard errors: what falls by more is falling
LEAST_GAIN = 0.002  # of the whole descent: what falls by more in a window is worth waiting for
EARLIER = 2  # windows before the present one that are needed to see where the way leads


class Plateau(Test):
    """The objective falls no more, as far as its noise lets one see.

    Steps are looked at in windows, each longer than the one before by a share of all steps, so that those after the end of the
    descent are never a large part of all. In a window, values must not fall against their spread (the slope of means of
    blocks), and the way since it began must no longer lead downhill: the gradients there, whose noise is new, times the way,
    don't average below zero against their spread; nor may both together, in standard errors.

    What falls slowly under much noise shows in none of these. But the mean point has moved between earlier windows, in a
    direction that has little noise and none of that of the present gradients. Times these it tells by how much the objective
    falls if it goes on so, and that must be next to nothing of all that it has fallen.

    Attributes
    ----------
    gain, error : float
        By how much the objective would fall in as many steps as the last window had, and the standard error of that.
    least : float
        The least mean value of a window.
    mean, slope : ndarray, shape (n,)
        The mean of the points of that window, and of their gradients.
    """

    memory = (
        "gain",
        "error",
        "least",
        "mean",
        "slope",
        "_values",
        "_ways",
        "_falls",
        "_anchor",
        "_drift",
        "_way",
        "_gradients",
        "_earlier",
        "_start",
        "_end",
        "_is_flat",
        "_steps",
    )

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self.gain, self.error, self.least = math.nan, math.inf, math.inf
        self.mean = told.x.copy()
        self.slope = np.zeros_like(told.x)
        self._begin_window()
        self._drift: NDArray[Any] | None = None  # by which the mean point moves in a step
        self._earlier: list[tuple[int, int, NDArray[Any]]] = []  # windows: the first step, that after the last, the mean point
        self._start = math.nan
        self._end, self._steps, self._is_flat = FIRST, 0, False

    def _begin_window(self) -> None:
        self._anchor = self.told.x.copy()
        self._way, self._gradients = np.zeros_like(self._anchor), np.zeros_like(self._anchor)
        self._values: list[float] = []
        self._ways: list[float] = []
        self._falls: list[float] = []

    @np.errstate(all="ignore")  # numbers that are too large tell of no end
    def see(self) -> None:
        """Take note of a draw, and at the end of a window look back."""
        told = self.told
        self._steps += 1
        self._values.append(told.value)
        way = told.x - self._anchor
        self._ways.append(float(product(parts(way), parts(told.found))))
        if self._drift is not None:
            self._falls.append(-float(product(parts(self._drift), parts(told.found))))
        self._way += way  # a sum of points would lose their last digits in float32
        self._gradients += told.found
        if self._steps >= self._end:
            self._look_back()

    def _look_back(self) -> None:
        values, ways = np.array(self._values), np.array(self._ways)
        slope, error = _slope(values)
        self.gain, self.error = -slope * len(values), error * len(values)
        downhill, spread = _mean(ways[len(ways) // 2 :])
        mean, uncertain = _mean(values)
        if not self._earlier:
            self._start = float(_means(values)[0])
        descent = abs(self._start - mean)
        is_slow = self._drift is not None and sum(self._falls) <= LEAST_GAIN * descent
        self._is_flat = is_slow and is_flat(slope, error, downhill, spread)
        point = self._anchor + self._way / len(values)
        if mean - uncertain < self.least:  # of windows that can't be told apart the last
            self.least = mean
            self.mean, self.slope = point, self._gradients / len(values)
        self._earlier.append((self._steps - len(values), self._steps, point))
        self._begin_window()
        self._look_ahead()
        self._end = max(self._end + FIRST, math.ceil(GROWTH * self._end))

    def _look_ahead(self) -> None:
        """Find where the way leads: from the window in which half of the steps were taken to the last one."""
        while len(self._earlier) > EARLIER and 2 * self._earlier[0][1] < self._steps:
            del self._earlier[0]
        (begin, end, then), (last_begin, last_end, now) = self._earlier[0], self._earlier[-1]
        if len(self._earlier) >= EARLIER:
            self._drift = (now - then) * (2.0 / (last_begin + last_end - begin - end))

    def reason(self) -> int | None:
        """The status, if it is so."""
        return PLATEAU if self._is_flat else None

    def fields(self) -> dict[str, Any]:
        """What a result has of it: the best window, if one has ended, and how sure it is that nothing more is to be had."""
        best = {} if self.least == math.inf else {"x": self.mean.copy(), "fun": self.least, "jac": self.slope.copy()}
        return {**best, "gain": self.gain, "gain_error": self.error}


class Plateaus(Test):
    """The objective of none of many starts falls any more: each has a test of its own, and is done with once that is passed.

    Parameters
    ----------
    told : Told
        What is known of all of them.
    population : Population
        What is known of each.
    """

    memory = ("of_starts",)

    def __init__(self, told: Told, population: Population) -> None:
        super().__init__(told)
        self._population = population
        self._plateaus = [Plateau(Told(x)) for x in told.x.reshape(population.shape)]
        self._are_done = np.zeros(len(self._plateaus), bool)

    @property
    def of_starts(self) -> list[dict[str, Any]]:
        """What the test of each start remembers."""
        return [memory_of(each) for each in self._plateaus]

    @of_starts.setter
    def of_starts(self, value: list[dict[str, Any]]) -> None:
        for each, memory in zip(self._plateaus, value, strict=True):
            remind(each, memory)

    def see(self) -> None:
        """Take note of a draw of each start that is not lost."""
        values, gradients = self._population.values, self.told.found.reshape(self._population.shape)
        for i in np.flatnonzero(np.isfinite(values)):
            plateau = self._plateaus[i]
            plateau.told.value, plateau.told.gradient = float(values[i]), gradients[i]
            plateau.see()
            self._are_done[i] |= plateau.reason() is not None

    def reason(self) -> int | None:
        """The status, if it is so of all that are not lost."""
        return PLATEAU if np.all(self._are_done | np.isinf(self._population.values)) else None

    def fields(self) -> dict[str, Any]:
        """What a result has of it: the best window of all starts, and the best of each."""
        best = min(self._plateaus, key=lambda each: each.least)
        means = [each.told.x if each.least == math.inf else each.mean for each in self._plateaus]
        energies = np.array([each.least for each in self._plateaus])
        of_each = {} if best.least == math.inf else {"population": np.array(means), "population_energies": energies}
        return {**best.fields(), **of_each}


def is_flat(slope: float, error: float, downhill: float, spread: float) -> bool:
    """Whether neither values nor gradients tell of a descent, nor both together, given with their standard errors."""
    together = slope * spread + downhill * error  # in standard errors, but not divided by them, which may be 0
    return slope >= -LEAST_FALL * error and downhill >= -LEAST_FALL * spread and together >= -LEAST_FALL * error * spread


def _means(draws: NDArray[Any]) -> NDArray[Any]:
    """Means of blocks of draws."""
    size = len(draws) // BLOCKS
    means: NDArray[Any] = draws[len(draws) - BLOCKS * size :].reshape(BLOCKS, size).mean(axis=1)
    return means


def _slope(draws: NDArray[Any]) -> tuple[float, float]:
    """The slope of draws by step, and its standard error, as the scatter of blocks about a line tells it."""
    means = _means(draws)
    places = np.arange(BLOCKS) - (BLOCKS - 1) / 2
    squares = float(places @ places)
    slope = float(places @ means) / squares
    scatter = means - means.mean() - slope * places
    error = math.sqrt(float(scatter @ scatter) / (BLOCKS - 2) / squares)
    size = len(draws) // BLOCKS
    return slope / size, error / size


def _mean(draws: NDArray[Any]) -> tuple[float, float]:
    """The mean of draws, and its standard error."""
    means = _means(draws)
    return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(BLOCKS)
