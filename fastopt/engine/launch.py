"""Launches of parallel kernels: one at a time, and on all threads only while that is faster than on one.

A parallel loop ends when its slowest thread does. While another program, or the pool of another library that waits in a loop
(a BLAS after each matrix product), keeps a core busy, that thread may wait milliseconds for its turn, longer than one thread
would have needed for everything. As the results are the same bits either way, each launcher tries now and then which is
faster at present.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numba

from fastopt.engine import runtime

SHORTEST_PHASE = 8  # launches between trials at first; twice as many after each trial that changed nothing
LONGEST_PHASE = 1024
TRIAL = 4  # launches in a trial
WORTHWHILE = 0.9  # a trial must be faster by this factor to change anything
# A launch with more traffic than this loses little by a turn of the scheduler, and much by a trial on one thread.
NO_TRIAL_FROM_BYTES = 128 * 1024 * 1024

# Numba's workqueue ends the process when two threads launch at once, and with any layer two launches would share the cores.
# Reentrant, so that a signal handler that steps an optimizer during a step doesn't wait for itself.
_turn = threading.RLock()


def in_turn(kernel: Callable[..., None]) -> Callable[..., None]:
    """Make a function that runs a parallel kernel, ``kernel(*arguments, threads)``, on all threads that fastopt may use."""

    def launch(*arguments: Any) -> None:
        with _turn:
            _run(kernel, arguments, runtime.get_num_threads())

    return launch


class Launcher:
    """Callable that runs a parallel kernel on all threads that fastopt may use, or on one if that is faster at present.

    Parameters
    ----------
    kernel : callable
        ``kernel(*arguments, threads)``.
    """

    def __init__(self, kernel: Callable[..., None]) -> None:
        self._kernel = kernel
        self._alone = False
        self._phase = SHORTEST_PHASE
        # Of the launches since the last trial, and of those of the present trial.
        self._seconds: list[float] = []
        self._trial_seconds: list[float] = []

    def __call__(self, *arguments: Any) -> None:
        """Launch the kernel when it is this thread's turn."""
        with _turn:
            is_trial = len(self._seconds) >= self._phase
            begin = time.perf_counter()
            _run(self._kernel, arguments, 1 if self._alone != is_trial else runtime.get_num_threads())
            (self._trial_seconds if is_trial else self._seconds).append(time.perf_counter() - begin)
            if len(self._trial_seconds) == TRIAL:
                self._conclude()

    def _conclude(self) -> None:
        """End the trial, and begin the next phase with the number of threads that was faster."""
        if _mean(self._trial_seconds) < WORTHWHILE * _mean(self._seconds):
            self._alone = not self._alone
            self._phase = SHORTEST_PHASE
        else:
            self._phase = min(2 * self._phase, LONGEST_PHASE)
        self._seconds.clear()
        self._trial_seconds.clear()


def _mean(seconds: list[float]) -> float:
    """Mean without the first, which pays for what the other number of threads left in the caches."""
    return sum(seconds[1:]) / (len(seconds) - 1)


def _run(kernel: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
    callers = numba.get_num_threads()
    # Not inside of the kernel, where Numba could not cache it.
    numba.set_num_threads(threads)
    try:
        kernel(*arguments, threads)
    finally:
        numba.set_num_threads(callers)


def _after_fork() -> None:
    global _turn
    _turn = threading.RLock()  # the parent's may be held by a thread that doesn't exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
