"""One problem learned with one optimizer, each step timed against the same step in NumPy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import fastopt
from fastopt.commands.demo import in_place
from fastopt.commands.demo.systems import SYSTEMS, System


class Problem(Protocol):
    """What a problem of the demo must offer."""

    name: str

    def start(self) -> fastopt.Flat:
        """The parameters to start from, the same for every optimizer."""

    def rates(self, lr: float) -> fastopt.Flat:
        """A learning rate of its own for each parameter, around `lr`."""

    def losses(self, params: fastopt.Flat, grads: fastopt.Flat, epoch: int) -> Iterator[float]:
        """The loss of each minibatch of an epoch; before it is given, `grads` is filled."""

    def score(self, params: fastopt.Flat) -> float:
        """How good the result is, on what was not learned from."""


class Run(NamedTuple):
    """What came of one problem and one optimizer."""

    system: System
    params: fastopt.Flat
    losses: list[float]  # the mean of each epoch
    score: float
    steps: int
    fused: float  # median seconds of a step by fastopt
    plain: float  # median seconds of the same step by in-place NumPy

    @property
    def speedup(self) -> float:
        """How many times the fused step is faster."""
        return self.plain / self.fused


class Pair:
    """fastopt's optimizer, and the NumPy one that takes the same steps on a copy of the parameters.

    Parameters
    ----------
    family : str
        The class, in `fastopt` and in `fastopt.commands.demo.in_place`.
    params : Flat
        Updated by `fastopt`.
    hyper : dict
        Hyper-parameters for both.
    rates : Flat, optional
        Replaces the learning rate.
    state : str, optional
        The format in which `fastopt` keeps the states.

    Attributes
    ----------
    fused, plain : object
        The two optimizers.
    fused_seconds, plain_seconds : list of float
        What each step took.
    """

    def __init__(
        self,
        family: str,
        params: fastopt.Flat,
        hyper: dict[str, Any],
        rates: fastopt.Flat | None = None,
        state: str | None = None,
    ) -> None:
        fused = (hyper if rates is None else hyper | {"lr": rates}) | {"state_dtype": state, "rounding": "stochastic"}
        plain = hyper if rates is None else hyper | {"lr": rates.buffer}
        self.fused = getattr(fastopt, family)(params, **fused)
        self.plain = getattr(in_place, family)(params.buffer.copy(), **plain)
        self.fused_seconds: list[float] = []
        self.plain_seconds: list[float] = []
        fastopt.warmup(self.fused)

    def step(self, grads: fastopt.Flat) -> None:
        """Take one step with each."""
        turns: list[tuple[Callable[[Any], None], Any, list[float]]] = [
            (self.fused.step, grads, self.fused_seconds),
            (self.plain.step, grads.buffer, self.plain_seconds),
        ]
        # Whoever comes second finds the gradient in the cache.
        if len(self.fused_seconds) % 2:
            turns.reverse()
        for step, g, seconds in turns:
            start = time.perf_counter()
            step(g)
            seconds.append(time.perf_counter() - start)


def train(problem: Problem, name: str, epochs: int, report: Callable[[float], None], state: str | None = None) -> Run:
    """Learn a problem with one optimizer.

    Parameters
    ----------
    problem : Problem
        What to learn.
    name : str
        Key in `SYSTEMS`.
    epochs : int
        How often to go through the data.
    report : callable
        Called after each epoch with its mean loss.
    state : str, optional
        The format in which fastopt keeps the states, rounded stochastically if it has 16 or 8 bits.

    Returns
    -------
    Run
        The result, with the times of the steps.
    """
    system = SYSTEMS[name]
    hyper = system.hyper(problem.name)
    params = problem.start()
    grads = params.like()
    pair = Pair(system.family, params, hyper, problem.rates(hyper["lr"]) if system.has_rate_vector else None, state)
    losses = []
    for epoch in range(epochs):
        total = []
        for loss in problem.losses(params, grads, epoch):
            pair.step(grads)
            total.append(loss)
        losses.append(statistics.fmean(total))
        report(losses[-1])
    fused, plain = statistics.median(pair.fused_seconds), statistics.median(pair.plain_seconds)
    return Run(system, params, losses, problem.score(params), len(pair.fused_seconds), fused, plain)
