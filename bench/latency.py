"""Single steps of small arrays, each timed by itself: what a caller waits for, with all that happens in between."""

from __future__ import annotations

import time

import numpy as np

import fastopt

SIZES = (1, 10, 100, 1_000, 10_000)
SHARES = (1, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)  # per cent


def quantiles(steps: int) -> dict[str, dict[str, float]]:
    """Seconds that shares of single steps took at most, by optimizer and number of elements, and by share."""
    found: dict[str, dict[str, float]] = {}
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
            seconds = np.percentile(times, SHARES)
            name = f"{cls.__name__}, {size:,} element{'s' if size > 1 else ''}"
            found[name] = {f"{share:g}": float(f"{each:.3g}") for share, each in zip(SHARES, seconds, strict=True)}
    return found
