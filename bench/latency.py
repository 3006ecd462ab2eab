"""Single steps of small arrays, each timed by itself: what a caller waits for, with all that happens in between."""

from __future__ import annotations

import time

import numpy as np

import fastopt

SIZES = (1, 10, 100, 1_000, 10_000)


def latencies(steps: int) -> dict[str, list[float]]:
    """Seconds of single steps, by optimizer and number of elements."""
    found: dict[str, list[float]] = {}
    for cls in (fastopt.SGD, fastopt.Adam):
        for size in SIZES:
            optimizer, g = cls(np.zeros(size, np.float32)), np.ones(size, np.float32)
            for _ in range(100):
                optimizer.step(g)
            times = []
            for _ in range(steps):
                begin = time.perf_counter()
                optimizer.step(g)
                times.append(time.perf_counter() - begin)
            found[f"{cls.__name__}, {size:,} elements"] = times
    return found
