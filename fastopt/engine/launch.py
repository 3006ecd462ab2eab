"""Launches of steps: parallel ones one at a time, each on the number of threads that is fastest at present.

To wake threads takes a few microseconds, much longer if they have gone to sleep, and a parallel loop ends when its slowest
thread does. While another program, or the pool of another library that waits in a loop (a BLAS after each matrix product),
keeps a core busy, that thread may wait milliseconds for its turn. As the results are the same bits either way, each launcher
tries now and then whether another number of threads is faster at present.
"""

from __future__ import annotations

import functools
import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from fastopt.engine import runtime
from fastopt.engine.steps import nothing, step_function

# Steps with less traffic than this are over before other threads are awake, whatever the rule.
SERIAL_BELOW_BYTES = 32 * 1024
# Those with less than this begin on one thread, and go on so forever if that takes less time.
ALONE_FIRST_BELOW_BYTES = 2 * 1024 * 1024
SERIAL_BELOW_SECONDS = 3.5e-6
# A launch with more than this loses little by a turn of the scheduler, and much by a trial on fewer threads.
NO_TRIAL_FROM_BYTES = 128 * 1024 * 1024

SAMPLE = 5  # launches that are timed before anything is decided
SHORTEST_PHASE = 8  # launches between trials at first; twice as many after each trial that changed nothing
LONGEST_PHASE = 1024
WORTHWHILE = 0.95  # a trial must be faster by this factor to change anything
SLOW = 4  # times as long as usual; after so many such launches the next trial comes at once
TRIAL_SHARE = 0.02  # of all time, that trials with slower numbers of threads may take
LONGEST_PAUSE = 1_000_000  # launches between trials, however much was lost: the machine may have been asleep
EMPTY_LAUNCHES, EMPTY_SECONDS = 20, 2e-3

# Numba's workqueue ends the process when two threads launch at once, and with any layer two launches would share the cores.
# Reentrant, so that a signal handler that steps an optimizer during a step doesn't wait for itself.
_turn = threading.RLock()

# ``run(*arguments)`` gives how the step ended.
Run = Callable[..., int]

# By the number of threads: what it takes to wake them, in this process.
_launch_seconds: dict[int, float] = {}


class Launch:
    """How to take steps with some traffic: on one thread, on several, or as it turns out to be faster.

    Parameters
    ----------
    traffic : int
        Bytes that a step moves.
    most : int, optional
        On how many threads at most.
    function : callable, optional
        Gives the compiled function that takes steps; by default `steps.step_function`.

    Attributes
    ----------
    run : callable or None
        What `prepare` chose, while it holds.
    """

    def __init__(self, traffic: int, most: int | None = None, function: Callable[[bool], Run] | None = None) -> None:
        self.run: Run | None = None
        self._function = function
        self._traffic, self._most = traffic, math.inf if most is None else most
        self._seconds: float | None = None  # on one thread, once it is known
        runtime.choose_anew_with_changes(self)

    def __call__(self, *arguments: Any) -> int:
        """Take a step: see `steps.step_function`, without the number of threads."""
        return (self.run or self.prepare())(*arguments)

    def prepare(self) -> Run:
        """Choose for the next steps, and compile the choice if need be."""
        threshold = runtime.get_parallel_threshold()
        finds_out = threshold is None
        is_short = finds_out and self._seconds is not None and self._seconds < SERIAL_BELOW_SECONDS
        alone = functools.partial(self._compiled(False), 1)
        if self._traffic < (SERIAL_BELOW_BYTES if threshold is None else threshold) or is_short:
            self.run = alone
        elif runtime.is_foreign_thread():
            return alone  # for the present
        elif min(self._most, runtime.available_threads()) == 1:
            self.run = alone
        elif finds_out and self._seconds is None and self._traffic < ALONE_FIRST_BELOW_BYTES:
            self.run = Sampled(alone, self._note)
        else:
            tries = finds_out and self._traffic < NO_TRIAL_FROM_BYTES
            seconds, threads = self._seconds if tries else None, min(self._most, runtime.get_num_threads())
            self.run = Launcher(alone, self._compiled(True), int(threads), seconds, tries)
        return self.run

    def _compiled(self, parallel: bool) -> Run:
        return (self._function or step_function)(parallel)

    def compile(self) -> None:
        """Compile all that launches may come to need, with the present number of threads."""
        if isinstance(self.prepare(), Sampled):
            self._compiled(True)

    def _note(self, seconds: float) -> None:
        # Before the next step, `prepare` chooses anew: then one that can't be chosen still leaves all as it was.
        self._seconds, self.run = seconds, None


class Sampled:
    """Callable that takes steps on one thread, until it is known how long that takes.

    Parameters
    ----------
    alone : callable
        Takes one.
    tell : callable
        Is called with the median of the first launches, in seconds.
    """

    def __init__(self, alone: Run, tell: Callable[[float], None]) -> None:
        self._alone, self._tell = alone, tell
        self._seconds: list[float] = []

    def __call__(self, *arguments: Any) -> int:
        """Take a step."""
        begin = time.perf_counter()
        ended = self._alone(*arguments)
        self._seconds.append(time.perf_counter() - begin)
        if len(self._seconds) >= SAMPLE:
            self._tell(statistics.median(self._seconds))
        return ended


class Launcher:
    """Callable that takes steps on the number of threads that is fastest at present.

    Parameters
    ----------
    alone : callable
        Takes one on the caller's thread.
    parallel : callable
        ``parallel(threads, *arguments)``.
    threads : int
        How many there are; at least 2.
    seconds : float, optional
        What it takes on one thread, where it begins then, instead of on all.
    tries : bool, default True
        Whether to try other numbers of threads.
    """

    def __init__(self, alone: Run, parallel: Run, threads: int, seconds: float | None = None, tries: bool = True) -> None:
        self._alone, self._parallel, self._most = alone, parallel, threads
        self._threads = threads if seconds is None else 1
        self._phase = SHORTEST_PHASE
        # Launches until the next that is timed; those that are: at present, and in a trial with another number.
        self._left: float = SHORTEST_PHASE - SAMPLE if tries else math.inf
        self._seconds: list[float] = []
        self._trial_seconds: list[float] = []
        if seconds is not None:
            self._left, self._seconds = 0, [seconds] * SAMPLE
        self._candidate = 1
        self._trials = 0
        self._patience, self._slow = math.inf, 0
        self._is_learning = False

    def __call__(self, *arguments: Any) -> int:
        """Take a step; a parallel launch waits for its turn."""
        if runtime.is_foreign_thread():
            return self._alone(*arguments)
        if self._left <= 0 and not self._is_learning:  # a signal handler may step while it does
            with _turn:
                return self._learn(arguments)
        self._left -= 1
        if self._threads == 1:
            return self._alone(*arguments)
        ended, seconds = self._launch(self._threads, arguments)
        if seconds > self._patience:
            self._slow += 1
            self._left = 0 if self._slow >= SLOW else self._left
        return ended

    def _launch(self, threads: int, arguments: tuple[Any, ...]) -> tuple[int, float]:
        """Step on so many threads; how it ended, and how long it took, in seconds."""
        if threads == 1:
            begin = time.perf_counter()
            ended = self._alone(*arguments)
        else:
            with _turn:
                begin = time.perf_counter()
                ended = self._parallel(threads, *arguments)
        return ended, time.perf_counter() - begin

    def _learn(self, arguments: tuple[Any, ...]) -> int:
        """Launch it in turn, and note how long it took: first as it is at present, then with another number of threads."""
        self._is_learning = True
        try:
            is_trial = len(self._seconds) >= SAMPLE
            if is_trial and not self._trial_seconds:
                self._candidate = self._other()
            ended, seconds = self._launch(self._candidate if is_trial else self._threads, arguments)
            (self._trial_seconds if is_trial else self._seconds).append(seconds)
            # One that is much slower need not go on for long.
            if len(self._trial_seconds) >= SAMPLE or sum(self._trial_seconds) > SLOW * sum(self._seconds):
                self._conclude()
            return ended
        finally:
            self._is_learning = False

    def _other(self) -> int:
        """Another number of threads: the best for equal shares of the work and what waking costs; or half, for busy cores."""
        self._trials += 1
        if self._threads > 1 and self._trials % 2 == 0:
            return self._threads // 2
        work = self._threads * max(0.0, statistics.median(self._seconds) - self._waking(self._threads))
        others = {*(1 << i for i in range(self._most.bit_length())), self._most} - {self._threads}
        seconds = {n: work / n + self._waking(n) for n in others}
        return min(others, key=seconds.__getitem__)

    def _waking(self, threads: int) -> float:
        """Seconds of a launch that has nothing to do."""
        if threads == 1:
            return 0.0
        if threads in _launch_seconds:
            return _launch_seconds[threads]
        times: list[float] = []
        while len(times) < EMPTY_LAUNCHES and sum(times) < EMPTY_SECONDS:
            begin = time.perf_counter()
            self._parallel(threads, *nothing())
            times.append(time.perf_counter() - begin)
        if len(times) == EMPTY_LAUNCHES:  # else cores are busy, which may not last
            _launch_seconds[threads] = min(times)
        return min(times)

    def _conclude(self) -> None:
        """End the trial, and begin the next phase with the number of threads that was faster."""
        usual, tried = statistics.median(self._seconds), statistics.median(self._trial_seconds)
        if tried < WORTHWHILE * usual:
            self._threads, usual = self._candidate, tried
            self._phase = SHORTEST_PHASE
        else:
            lost = len(self._trial_seconds) * (tried - usual)
            self._phase = max(min(2 * self._phase, LONGEST_PHASE), min(round(lost / usual / TRIAL_SHARE), LONGEST_PAUSE))
        self._left = self._phase - SAMPLE
        self._patience, self._slow = SLOW * usual, 0
        self._seconds, self._trial_seconds = [], []


def _after_fork() -> None:
    global _turn
    _turn = threading.RLock()  # the parent's may be held by a thread that doesn't exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
