"""Launches of parallel kernels: one at a time, each on the number of threads that is fastest at present.

To wake threads takes a few microseconds, much longer if they have gone to sleep, and a parallel loop ends when its slowest
thread does. While another program, or the pool of another library that waits in a loop (a BLAS after each matrix product),
keeps a core busy, that thread may wait milliseconds for its turn. As the results are the same bits either way, each launcher
tries now and then whether another number of threads is faster at present.
"""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from fastopt.engine import runtime

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

# ``run(*arguments)``
Run = Callable[..., None]

# By the number of threads: what it takes to wake them, in this process.
_launch_seconds: dict[int, float] = {}


class Sampled:
    """Callable that runs a kernel on one thread, until it is known how long that takes.

    Parameters
    ----------
    alone : callable
        Runs it.
    tell : callable
        Is called with the median of the first launches, in seconds.
    """

    def __init__(self, alone: Run, tell: Callable[[float], None]) -> None:
        self._alone, self._tell = alone, tell
        self._seconds: list[float] = []

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel."""
        begin = time.perf_counter()
        self._alone(*arguments)
        self._seconds.append(time.perf_counter() - begin)
        if len(self._seconds) >= SAMPLE:
            self._tell(statistics.median(self._seconds))


class Launcher:
    """Callable that runs a kernel on the number of threads that is fastest at present.

    Parameters
    ----------
    alone : callable
        Gives what runs the kernel on the caller's thread.
    parallel : callable
        ``parallel(length, threads, *arguments)``.
    length : int
        Where everything ends.
    threads : int
        How many there are; at least 2.
    seconds : float, optional
        What it takes on one thread, where it begins then, instead of on all.
    tries : bool, default True
        Whether to try other numbers of threads.
    """

    def __init__(
        self,
        alone: Callable[[], Run],
        parallel: Run,
        length: int,
        threads: int,
        seconds: float | None = None,
        tries: bool = True,
    ) -> None:
        self._alone, self._parallel, self._length, self._most = alone, parallel, length, threads
        # One that begins on all threads needs no serial kernel: the parallel one can be tried on one thread.
        self._begins_alone = seconds is not None
        self._threads = 1 if self._begins_alone else threads
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

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel; a parallel launch waits for its turn."""
        if runtime.is_foreign_thread():
            self._alone()(*arguments)
        elif self._left <= 0 and not self._is_learning:  # a signal handler may step while it does
            with _turn:
                self._learn(arguments)
        elif self._threads == 1 and self._begins_alone:
            self._left -= 1
            self._alone()(*arguments)
        else:
            self._left -= 1
            if self._launch(self._threads, arguments) > self._patience:
                self._slow += 1
                self._left = 0 if self._slow >= SLOW else self._left

    def _launch(self, threads: int, arguments: tuple[Any, ...]) -> float:
        """Run it on so many threads; how long it took, in seconds."""
        if threads == 1 and self._begins_alone:
            begin = time.perf_counter()
            self._alone()(*arguments)
        else:
            with _turn:
                begin = time.perf_counter()
                self._parallel(self._length, threads, *arguments)
        return time.perf_counter() - begin

    def _learn(self, arguments: tuple[Any, ...]) -> None:
        """Launch it in turn, and note how long it took: first as it is at present, then with another number of threads."""
        self._is_learning = True
        try:
            is_trial = len(self._seconds) >= SAMPLE
            if is_trial and not self._trial_seconds:
                self._candidate = self._other(arguments)
            seconds = self._launch(self._candidate if is_trial else self._threads, arguments)
            (self._trial_seconds if is_trial else self._seconds).append(seconds)
            # One that is much slower need not go on for long.
            if len(self._trial_seconds) >= SAMPLE or sum(self._trial_seconds) > SLOW * sum(self._seconds):
                self._conclude()
        finally:
            self._is_learning = False

    def _other(self, arguments: tuple[Any, ...]) -> int:
        """Another number of threads: the best for equal shares of the work and what waking costs; or half, for busy cores."""
        self._trials += 1
        if self._threads > 1 and self._trials % 2 == 0:
            return self._threads // 2
        work = self._threads * max(0.0, statistics.median(self._seconds) - self._waking(self._threads, arguments))
        others = {*(1 << i for i in range(self._most.bit_length())), self._most} - {self._threads}
        seconds = {n: work / n + self._waking(n, arguments) for n in others}
        return min(others, key=seconds.__getitem__)

    def _waking(self, threads: int, arguments: tuple[Any, ...]) -> float:
        """Seconds of a launch that has nothing to do."""
        if threads == 1:
            return 0.0
        if threads in _launch_seconds:
            return _launch_seconds[threads]
        times: list[float] = []
        while len(times) < EMPTY_LAUNCHES and sum(times) < EMPTY_SECONDS:
            begin = time.perf_counter()
            self._parallel(0, threads, *arguments)
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
