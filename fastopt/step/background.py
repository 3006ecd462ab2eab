"""A thread in which steps are taken one after the other."""

from __future__ import annotations

import os
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
    """Starts its thread when it is first needed, and anew in a forked child, where the parent's is not."""

    def __init__(self) -> None:
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def submit(self, function: Callable[..., None], *arguments: Any) -> Future[None]:
        """Call a function there, after those that were asked for before."""
        process = os.getpid()
        if self._pool is None or self._pool[0] != process:
            self._pool = process, ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastopt")
        return self._pool[1].submit(function, *arguments)
