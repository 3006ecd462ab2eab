"""One thread of Python at a time."""

from __future__ import annotations

import os
import threading

from fastopt.step.plan import ONE_AT_A_TIME, BusyError


class Turn:
    """A ``with`` block that one thread is in, and its signal handlers; others are refused.

    What a compiled call does is guarded by that call. This guards what Python prepares for it, and what it must then find.
    """

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        if self._process == os.getpid():
            raise BusyError(ONE_AT_A_TIME)
        # A thread of the parent has it, which doesn't exist in this fork.
        self._process, self._lock = os.getpid(), threading.RLock()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
