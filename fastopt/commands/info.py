"""What fastopt runs on: versions, processor, threads, cache, and how fast memory is."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

import fastopt
from fastopt.arrays.layout import aligned_zeros
from fastopt.engine import runtime
from fastopt.engine.compile import Variant, compiled_span
from fastopt.engine.interpreted import IS_INTERPRETED
from fastopt.optimizers.sgd import gradient_descent

ELEMENTS = 16 * 1024**2
STEPS = 10

# That of gradient descent in float32, the simplest one.
KERNEL = Variant(gradient_descent, np.dtype(np.float32), np.dtype(np.float32), (), (None,))


def report() -> str:
    """All of it as text, one line for each fact."""
    # These first: where there is no cache, the first kernel tells why; and once threads were launched, their layer is known.
    kernels, speed = _attempt(lambda: cache()[1]), _attempt(_speed)
    quota = runtime.cpu_quota()
    python = [platform.python_implementation(), f"{platform.system()} {platform.machine()}"]
    python += [] if runtime.has_global_lock() else ["without the global lock"]
    facts = {
        "fastopt": fastopt.__version__,
        "numba": numba.__version__,
        "NumPy": np.__version__,
        "Python": f"{platform.python_version()} ({', '.join(python)})",
        "CPU": f"{cpu_name()}, {cpu_count()} usable",
        "CPU quota": "none" if quota is None else f"{quota:g} CPUs",
        "threads": f"{fastopt.get_num_threads()} (NUMBA_NUM_THREADS = {numba.config.NUMBA_NUM_THREADS})",
        "threading layer": _threading_layer(),
        "cache": kernels,
        "bandwidth": speed,
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in facts.items())


def _attempt(fact: Callable[[], str]) -> str:
    if IS_INTERPRETED:
        return "not to be had: NUMBA_DISABLE_JIT is set, so nothing is compiled"
    try:
        return fact()
    except (RuntimeError, ValueError) as failure:  # Numba can't run as its environment variables want it to
        return f"not to be had: {failure}"


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_count() -> int:
    """CPUs that this process may use."""
    # What this process may use can be less than what the machine has; not every system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threading_layer() -> str:
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none started: every step runs in one thread"


def cache() -> tuple[bool, str]:
    """Whether the cache of kernels works, and its folder, and whether one of them was found or left there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        span = compiled_span(KERNEL)
    if span._cache.cache_path is None:
        reason = f": {caught[-1].message}" if caught else ""
        return False, f"does not work{reason}"
    folder = Path(span._cache.cache_path)
    if span.cache_hits:
        return True, f"{folder} works (a kernel was loaded from it)"
    if any(folder.glob(f"*{KERNEL.name}*.nbc")):
        return True, f"{folder} works (a kernel was saved to it)"
    return False, f"{folder} does not work: a kernel was not saved to it"


def bandwidths(*threads: int) -> list[float]:
    """GB/s of the quickest of some steps of gradient descent over arrays that no cache holds, for each number of threads."""
    theta = aligned_zeros(ELEMENTS, np.float32)
    g = np.ones(ELEMENTS, np.float32)
    optimizers = [fastopt.SGD(theta, threads=n) for n in threads]
    seconds = []
    for _ in range(1 + STEPS):  # the first of each compiles
        for optimizer in optimizers:
            start = time.perf_counter()
            optimizer.step(g)
            seconds.append(time.perf_counter() - start)
    moved = 2 * theta.nbytes + g.nbytes
    return [moved / min(seconds[i :: len(threads)][1:]) / 1e9 for i in range(len(threads))]


def _speed() -> str:
    (speed,) = bandwidths(fastopt.get_num_threads())
    return (
        f"{speed:.1f} GB/s (best of {STEPS} steps of fastopt.SGD over {ELEMENTS:,} float32: "
        "theta read and written, gradient read, 12 bytes an element)"
    )
