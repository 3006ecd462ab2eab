"""``python -m bench.startup``: what importing fastopt adds to importing Numba, and how long the first step takes.

Everything runs in fresh processes with a kernel cache of their own; the first one fills it and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

SCRIPT = """
import json, time
begin = time.perf_counter()
import numba
numba_done = time.perf_counter()
import fastopt
fastopt_done = time.perf_counter()
import numpy as np
theta, g = np.zeros({size}, np.float32), np.ones({size}, np.float32)
optimizer = fastopt.Adam(theta)
ready = time.perf_counter()
optimizer.step(g)
first = time.perf_counter()
optimizer.step(g)
second = time.perf_counter()
print(json.dumps({{
    "import numba": numba_done - begin,
    "import fastopt, in addition": fastopt_done - numba_done,
    "first step of Adam, {size:,} elements, warm cache": first - ready,
    "second step of Adam, {size:,} elements": second - first,
}}))
"""

# One is stepped by the serial kernel, the other by the parallel one.
SIZES = (1_000, 1_000_000)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.startup --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, metavar="N", help="processes for each size")
    repeat = parser.parse_args(argv).repeat
    seconds = measured(repeat)
    print(f"Milliseconds: median, least and most of {repeat} fresh processes for each size\n")
    for what, times in seconds.items():
        print(f"{what:55s} {statistics.median(times) * 1e3:8.2f} {min(times) * 1e3:8.2f} {max(times) * 1e3:8.2f}")


def measured(repeat: int) -> dict[str, list[float]]:
    """Seconds of what happens once in a process, in so many processes for each size."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for size in SIZES:
            _run(size, cache)
            for _ in range(repeat):
                for what, time in _run(size, cache).items():
                    seconds.setdefault(what, []).append(time)
    return seconds


def _run(size: int, cache: str) -> dict[str, float]:
    environment = dict(os.environ, NUMBA_CACHE_DIR=cache)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process would compile fastopt's sources
    script = SCRIPT.format(size=size)
    process = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    times: dict[str, float] = json.loads(process.stdout)
    return times


if __name__ == "__main__":
    main()
