"""A thread in which steps are taken one after the other."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


@property  # type: ignore[misc]
def progress(self: Any) -> float | None:
    """How much of a step under way is done, between 0 and 1, for other threads to ask; None if none is, or a short one.

    Short are steps that move less than 256 KiB.
    """
    plan = self._stepping.plan
    return None if plan is None else plan.progress


class Background:
    """Starts its thread when it is first needed, and anew in a forked child, where the parent's is not.

    Parameters
    ----------
    niceness : int, default 0
        By how much the thread gives way to others where cores are few; on Linux, where threads have priorities of their own.
    """

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function there, after those that were asked for before."""
        process = os.getpid()
        if self._pool is None or self._pool[0] != process:
            pool = ThreadPoolExecutor(1, "fastopt", initializer=_give_way, initargs=(self._niceness,))
            self._pool = process, pool
        return self._pool[1].submit(function, *arguments)


def _give_way(niceness: int) -> None:
    """Let others go first. A method would keep its object alive, and by that the pool and this thread."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
