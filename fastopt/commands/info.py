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


def report() -> str:
    """All of it as text, one line for each fact."""
    # These first: where there is no cache, the first kernel tells why; and once threads were launched, their layer is known.
    cache, bandwidth = _attempt(_cache), _attempt(_bandwidth)
    quota = runtime.cpu_quota()
    facts = {
        "fastopt": fastopt.__version__,
        "numba": numba.__version__,
        "NumPy": np.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()} {platform.machine()})",
        "CPU": f"{cpu_name()}, {cpu_count()} usable",
        "CPU quota": "none" if quota is None else f"{quota:g} CPUs",
        "threads": f"{fastopt.get_num_threads()} (NUMBA_NUM_THREADS = {numba.config.NUMBA_NUM_THREADS})",
        "threading layer": _threading_layer(),
        "cache": cache,
        "bandwidth": bandwidth,
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


def _cache() -> str:
    """The folder of compiled kernels, and whether one of them was found or left there."""
    variant = Variant(gradient_descent, np.dtype(np.float32), np.dtype(np.float32), (), (None,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        span = compiled_span(variant)
    if span._cache.cache_path is None:
        reason = f": {caught[-1].message}" if caught else ""
        return f"does not work{reason}"
    folder = Path(span._cache.cache_path)
    if span.cache_hits:
        return f"{folder} works (a kernel was loaded from it)"
    saved = any(folder.glob(f"*{variant.name}*.nbc"))
    return f"{folder} works (a kernel was saved to it)" if saved else f"{folder} does not work: a kernel was not saved to it"


def _bandwidth() -> str:
    """The traffic of the quickest of some steps of gradient descent, over arrays that no cache holds."""
    theta = aligned_zeros(ELEMENTS, np.float32)
    g = np.ones(ELEMENTS, np.float32)
    optimizer = fastopt.SGD(theta)
    optimizer.step(g)  # compiles, and touches theta for the first time
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.step(g)
        seconds.append(time.perf_counter() - start)
    moved = 2 * theta.nbytes + g.nbytes
    return (
        f"{moved / min(seconds) / 1e9:.1f} GB/s (best of {STEPS} steps of fastopt.SGD over {ELEMENTS:,} float32: "
        "theta read and written, gradient read, 12 bytes an element)"
    )
