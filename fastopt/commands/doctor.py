"""What makes steps slow or wrong on this machine, and what mends it."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding
import numba
import numpy as np

import fastopt
from fastopt.commands import info, timing
from fastopt.engine import cache, runtime
from fastopt.engine.compile import compile_span
from fastopt.engine.interpreted import IS_INTERPRETED

# Of Numba's settings those that change the machine code: the variable, the name in its configuration, and what it may be.
CODE_SETTINGS = {
    "NUMBA_OPT": ("OPT", (3,)),
    "NUMBA_LOOP_VECTORIZE": ("LOOP_VECTORIZE", (1,)),
    "NUMBA_DEBUGINFO": ("DEBUGINFO_DEFAULT", (0,)),
    "NUMBA_BOUNDSCHECK": ("BOUNDSCHECK", (None, 0)),
    "NUMBA_CPU_NAME": ("CPU_NAME", (None,)),
    "NUMBA_CPU_FEATURES": ("CPU_FEATURES", (None, "")),
}

# How many times as long something takes, from which on that is worth a word.
SLOW_SUBNORMALS = 3.0
SLOW_GRADIENTS = 1.2
SLOW_BESIDE_PRODUCTS = 3.0

# Of the CPUs that a process may use, the part that it should get.
ENOUGH = 0.8


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do about it, if anything.

    What is found on most machines, and slows down some programs, has a hint and no mend: it is no reason to stop.
    """

    subject: str
    found: str
    mend: str = ""
    hint: str = ""


def compiler() -> Finding:
    """Whether Numba compiles at all, and with the settings that make fast code."""
    if IS_INTERPRETED:
        return Finding("compiler", "NUMBA_DISABLE_JIT is set: rules run in Python", "unset NUMBA_DISABLE_JIT")
    changed = [name for name, (field, usual) in CODE_SETTINGS.items() if getattr(numba.config, field) not in usual]
    if changed:
        names = ", ".join(changed)
        return Finding("compiler", f"settings of Numba change the machine code: {names}", f"unset {names}, unless it is meant")
    return Finding("compiler", f"Numba {numba.__version__} with its usual settings")


def kernels() -> Finding:
    """Whether kernels are kept on disk, and were kept for this processor."""
    works, found = info.cache()
    if not works:
        mend = "set NUMBA_CACHE_DIR to a folder that you alone can write to; without one, each process compiles anew"
        return Finding("cache", found, mend)
    own = _kernels(cache.folder())
    for processor, others in _other_processors().items():
        missing = len(others - own)
        if 2 * missing > len(others):
            found = f"{missing} of the {len(others)} kernels for {processor} in NUMBA_CACHE_DIR are not there for this one"
            return Finding("cache", found, "run python -m fastopt warmup, for what you use, once on each kind of processor")
    return Finding("cache", found)


def _other_processors() -> dict[str, set[str]]:
    """Of this version the kernels for each of them, in the folder that was chosen."""
    if not numba.config.CACHE_DIR:
        return {}
    own, start = cache.folder(), f"fastopt-{fastopt.__version__}-"
    others = sorted(path for path in own.parent.glob(f"{start}*") if path != own)
    return {path.name.removeprefix(start).rpartition("-")[0]: _kernels(path) for path in others}


def _kernels(folder: Path) -> set[str]:
    """Those of this Python, whatever sources they were made of."""
    major, minor, *_ = sys.version_info
    return {path.name.rpartition("_")[0] for path in folder.glob(f"*.py{major}{minor}*.nbi")}


def vectors() -> Finding:
    """How many bytes the loop of a small rule takes at once, and how many this processor could."""
    code = compile_span(info.KERNEL, is_cached=False).inspect_llvm()
    # Of vectors whose length only the processor knows ("vscale") the least one.
    width = 4 * max(map(int, re.findall(r"fmul <(?:vscale x )?(\d+) x float>", code)), default=0)
    features = llvmlite.binding.get_host_cpu_features()
    # Of vectors with 64 bytes LLVM makes no use on processors that they slow down.
    able = 32 if features.get("avx") else 16
    if width >= able:
        return Finding("vectors", f"loops take {width} bytes at once")
    found = f"loops take {width or 4} bytes at once, where this processor has vectors of {able}"
    return Finding("vectors", found, "unset what the compiler's settings were changed by, and install the newest llvmlite")


def threads() -> Finding:
    """How many threads there are, against the CPUs that this process may use."""
    usable, count, quota = info.cpu_count(), numba.config.NUMBA_NUM_THREADS, runtime.cpu_quota()
    if not runtime.has_global_lock():
        found = f"{fastopt.get_num_threads()} for {_counted(usable, 'CPU')}"
        found += ": Python runs without its global lock, where fastopt was not tested"
        return Finding("threads", found, "set PYTHON_GIL=1; else step each optimizer in one thread of Python alone")
    if count > usable:
        found = f"{count} threads for {_counted(usable, 'CPU')}: they wait for each other"
        return Finding("threads", found, f"set NUMBA_NUM_THREADS={usable}")
    if quota is not None and quota < fastopt.get_num_threads():
        most = _counted(fastopt.get_num_threads(), "thread")
        found = f"{most} for a quota of {quota:g} CPUs: everything stands still when it is used up"
        return Finding("threads", found, "give the container whole CPUs")
    if count < usable and (quota is None or count < quota):
        mend = "unset NUMBA_NUM_THREADS, unless other processes use the rest"
        return Finding("threads", f"{count} for {_counted(usable, 'CPU')}", mend)
    at_a_time = "" if quota is None else f", of which {quota:g} at a time"
    return Finding("threads", f"{fastopt.get_num_threads()} for {_counted(usable, 'CPU')}{at_a_time}")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count > 1 else ''}"


def bandwidth() -> Finding:
    """How fast memory is, for one thread and for all."""
    most = fastopt.get_num_threads()
    one, *rest = info.bandwidths(*sorted({1, most}))
    found = f"{one:.1f} GB/s with 1 thread" + "".join(f", {each:.1f} with {most} ({each / most:.1f} for each)" for each in rest)
    if rest and rest[0] < 0.8 * one:
        mend = "find out what else uses it, or hold steps to fewer threads: fastopt.set_num_threads(1)"
        return Finding("memory", found, mend)
    return Finding("memory", found)


def layer() -> Finding:
    """Which of Numba's threading layers is in use, once threads were launched."""
    if fastopt.get_num_threads() == 1:
        return Finding("threading layer", "none, with one thread")
    name = numba.threading_layer()
    if name == "workqueue":
        found = "workqueue: small parallel steps take twice as long, and two threads with parallel code end the process"
        mend = "unset NUMBA_THREADING_LAYER, and install OpenMP's library (libgomp on Linux, libomp on macOS)"
        return Finding("threading layer", found, mend)
    return Finding("threading layer", name)


def waiting() -> Finding:
    """How OpenMP's threads wait for the next launch."""
    policy, spins = os.environ.get("OMP_WAIT_POLICY", "").lower(), os.environ.get("GOMP_SPINCOUNT", "").lower()
    if policy == "active" or spins in ("infinite", "infinity"):
        found = "threads that have nothing to do keep a CPU busy for ever"
        return Finding("waiting threads", found, "unset OMP_WAIT_POLICY and GOMP_SPINCOUNT")
    if policy == "passive":
        found = "they sleep: good beside busy CPUs, while on idle ones small parallel steps start later"
        return Finding("waiting threads", found)
    return Finding("waiting threads", "as OpenMP has it: some milliseconds in a loop, then they sleep")


def blas() -> Finding:
    """Whether matrix products have more threads than CPUs."""
    try:
        import threadpoolctl
    except ImportError:
        return Finding("BLAS", "not looked at", hint="install threadpoolctl for that")
    quota = runtime.cpu_quota()
    able = info.cpu_count() if quota is None else min(info.cpu_count(), math.ceil(quota))
    most = max((pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"), default=1)
    if most > able:
        found = f"{most} threads for {_counted(able, 'CPU')}, which keep them busy after each product"
        mend = f"set OPENBLAS_NUM_THREADS={able} (MKL_NUM_THREADS, OMP_NUM_THREADS) before Python starts"
        return Finding("BLAS", found, mend)
    return Finding("BLAS", _counted(most, "thread"))


def products() -> Finding:
    """Whether the threads of BLAS, which wait in a loop after a matrix product, slow down a step."""
    count = fastopt.get_num_threads()
    if count == 1:
        return Finding("after products", "steps have one thread, which need not wait for those of BLAS")
    alone, beside = timing.with_products()
    found = f"a step on {count} threads takes {1e6 * alone:,.0f} µs, and {1e6 * beside:,.0f} right after a matrix product"
    if beside > SLOW_BESIDE_PRODUCTS * alone:
        hint = "where matrices are small, OPENBLAS_NUM_THREADS=1, or threadpoolctl; else threads=1, if steps don't find it out"
        return Finding("after products", found, hint=hint)
    return Finding("after products", found)


def gradients() -> Finding:
    """What it costs if gradients lie in another way than parameters, or are of another dtype."""
    ratios = timing.with_gradients()
    found = "steps are longer by the factors " + ", ".join(f"{ratio:.1f} ({way})" for way, ratio in ratios.items())
    if max(ratios.values()) > SLOW_GRADIENTS:
        hint = "let them be written to fastopt.flatten(params).like(), which lies as the parameters do, in their dtype"
        return Finding("gradients", found, hint=hint)
    return Finding("gradients", found)


def load() -> Finding:
    """Whether this process gets the CPUs that it may use, or others are at work."""
    quota = runtime.cpu_quota()
    able = info.cpu_count() if quota is None else min(info.cpu_count(), quota)
    got = timing.cpus_to_be_had(math.ceil(able))
    found = f"{got:.1f} of {able:g} CPUs are to be had"
    if got < ENOUGH * able:
        return Finding("load", f"{found}: others are at work", "wait for them, or use fewer threads")
    return Finding("load", found)


def subnormals() -> Finding:
    """Whether numbers below the smallest normal one are kept, and how long it takes to compute with them."""
    tiny = np.full(4096, np.finfo(np.float32).tiny)
    if not np.all(tiny * np.float32(0.5)):
        found = "this thread takes subnormal numbers for 0: a library compiled with -ffast-math has set the processor so"
        mend = "import fastopt in a process without that library; results have other bits beside it"
        return Finding("subnormals", found, mend)
    slow, usual = timing.quickest(lambda: tiny * np.float32(0.5), lambda: tiny * np.float32(2.0))
    if slow > SLOW_SUBNORMALS * usual:
        hint = "flush_subnormals=True keeps them out of states, where gradients are 0 for long"
        return Finding("subnormals", f"take {slow / usual:.0f} times as long", hint=hint)
    return Finding("subnormals", "are kept, and take no longer than others")


CHECKS = (compiler, kernels, vectors, threads, load, bandwidth, layer, waiting, blas, products, gradients, subnormals)

# What needs machine code; the compiler's check says why there is none.
COMPILED = (kernels, vectors, bandwidth, layer, products, gradients)


def findings() -> list[Finding]:
    """Look at everything. What can't be looked at is to be mended, too."""
    return [_attempt(check) for check in CHECKS if not (IS_INTERPRETED and check in COMPILED)]


def _attempt(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except OSError as failure:
        mend = "let this process use what it names"
        return Finding(check.__name__, f"can't be looked at: {failure}", mend)
    except (RuntimeError, ValueError) as failure:  # Numba can't run as its environment variables want it to
        mend = "unset the environment variables of Numba that it names"
        return Finding(check.__name__, f"can't be looked at: {failure}", mend)


def report(found: list[Finding]) -> str:
    """Findings as text, each with its mend or hint on a line of its own."""
    width = max(len(finding.subject) for finding in found)
    lines = []
    for subject, words, mend, hint in found:
        lines.append(f"{'MEND' if mend else 'note' if hint else 'good'}  {subject:{width}}  {words}")
        if mend or hint:
            lines.append(f"      {'':{width}}  -> {mend or hint}")
    return "\n".join(lines)
