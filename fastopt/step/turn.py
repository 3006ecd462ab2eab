"""One thread of Python at a time."""

from __future__ import annotations

import os
import threading
import weakref

from fastopt.step.plan import ONE_AT_A_TIME, BusyError

# All that there are.
_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class Turn:
    """A ``with`` block that one thread is in, and its signal handlers; others are refused.

    What a compiled call does is guarded by that call. This guards what Python prepares for it, and what it must then find.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _turns.add(self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise BusyError(ONE_AT_A_TIME)

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def forget_fork(self) -> None:
        """Be free in a child that was forked while another thread of the parent was in the block."""
        if self._lock.acquire(blocking=False):  # nobody was, or the thread that the child goes on with
            self._lock.release()
        else:
            self._lock = threading.RLock()


def _after_fork() -> None:
    for turn in list(_turns):
        turn.forget_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
