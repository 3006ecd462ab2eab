"""How it is measured: contenders take turns in one process, so that what else the machine does meets all of them alike.

A turn is a block of calls, not a single one: after its own parallel loop each library's threads keep spinning for a while
and would take time from the next library's. A block begins with calls that are not timed, until those have gone to sleep
and the caches hold the contender's own arrays.
"""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bench.cases import Case

Step = Callable[[], object]
Name = TypeVar("Name")

WARMUP_SECONDS = 0.005


@dataclass(frozen=True)
class Result:
    """Seconds a step of every contender, by its name, in every round."""

    case: Case
    dtype: str
    size: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, contender: str) -> float:
        """Median over the rounds, in seconds."""
        return float(np.median(self.seconds[contender]))

    def bandwidth(self, contender: str) -> float:
        """Bytes a second that the step moves at its median."""
        return self.case.traffic(self.size, self.dtype) / self.median(contender)

    def ratio(self, contender: str, reference: str) -> tuple[float, float, float]:
        """Quartiles of the rounds' ratios of two contenders' times."""
        ratios = np.divide(self.seconds[contender], self.seconds[reference])
        low, median, high = np.percentile(ratios, [25, 50, 75])
        return float(low), float(median), float(high)


def interleaved(
    steps: Mapping[Name, Step], rounds: int, block_seconds: float, long: float = math.inf
) -> dict[Name, list[float]]:
    """Seconds a call of every step in every round.

    Parameters
    ----------
    steps : mapping of callable
        By name.
    rounds : int
        Blocks of each step. Every other round runs in the reverse order, so that a drift favours none.
    block_seconds : float
        How long a block should take; it has one call at least.
    long : float, optional
        Seconds that a round may take before there are fewer rounds: three fifths, but three at least.
    """
    calls, durations = {}, {}
    for name, step in steps.items():
        calls[name], durations[name] = _calls_within(step, block_seconds)
    if sum(durations.values()) > long:
        rounds = min(rounds, max(3, round(0.6 * rounds)))
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name in list(steps)[:: -1 if i % 2 else 1]:
            _warm_up(steps[name])
            seconds[name].append(timeit.timeit(steps[name], number=calls[name]) / calls[name])
    return seconds


def _warm_up(step: Step) -> None:
    end = time.perf_counter() + WARMUP_SECONDS
    step()
    while time.perf_counter() < end:
        step()


def _calls_within(step: Step, seconds: float) -> tuple[int, float]:
    """How many calls take about so long, after all that happens in the first ones only; and how long they take."""
    for _ in range(2):  # PyTorch compiles the second step anew, as there are states then
        _warm_up(step)
    calls = 1
    while (elapsed := timeit.timeit(step, number=calls)) < seconds / 4:
        calls *= 2
    fitting = max(1, round(calls * seconds / elapsed))
    return fitting, fitting * elapsed / calls
