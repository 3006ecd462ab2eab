"""Threads: how many, and when a parallel kernel may be launched at all.

Numba's parallel kernels end the process when they are launched in a forked child (OpenMP) or from two threads at once
(workqueue). So the route is chosen before the launch: serial for small arrays, in every forked child and in threads that
Python did not start (a worker of somebody's ``prange``); everything else takes its turn (see `launch`).
"""

from __future__ import annotations

import math
import operator
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock

_MAIN_THREAD = threading.main_thread().ident

_threads: int | None = None
_parallel_threshold: int | None = None
_forked = False

# Weak references by identity: no set of them, which could not be gone through while another thread adds one.
_choosers: dict[int, weakref.ref[Any]] = {}


def choose_anew_with_changes(chooser: Any) -> None:
    """Set ``chooser.run`` to None whenever the number of threads or the threshold changes."""
    key = id(chooser)
    _choosers[key] = weakref.ref(chooser, lambda _: _choosers.pop(key, None))


def keep_choice(chooser: Any) -> None:
    """Leave ``chooser.run`` as it is from now on."""
    _choosers.pop(id(chooser), None)


def _choose_anew() -> None:
    for reference in list(_choosers.values()):
        if (chooser := reference()) is not None:
            chooser.run = None


def set_num_threads(n: int) -> None:
    """Set how many threads a step may use.

    Parameters
    ----------
    n : int
        From 1 to ``numba.config.NUMBA_NUM_THREADS``, which is fixed when Numba is imported (the environment variable
        ``NUMBA_NUM_THREADS``; by default the number of CPUs). The results are the same bits for every number.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.
    """
    global _threads
    count = _integer("n", n)
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(f"n must be between 1 and NUMBA_NUM_THREADS = {most}, got {count}")
    _threads = count
    _choose_anew()


def get_num_threads() -> int:
    """Number of threads a step may use.

    Returns
    -------
    int
        What `set_num_threads` set, else Numba's number, limited by the CPU quota of the container (rounded up); 1 where Python
        runs without its global lock, as more were not tested there.
    """
    global _threads
    if _threads is None:
        quota = cpu_quota()
        most: int = numba.config.NUMBA_NUM_THREADS if has_global_lock() else 1
        _threads = most if quota is None else max(1, min(most, math.ceil(quota)))
    return _threads


def has_global_lock() -> bool:
    """Whether Python runs one thread at a time: always, but for builds for free threading without a module that asks for it."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def set_parallel_threshold(n_bytes: int | None) -> None:
    """Set from which size on a step is parallel, instead of finding out.

    Parameters
    ----------
    n_bytes : int or None
        Traffic in bytes: what is updated counts twice, everything else that is read once. A step of an array that moves less
        runs on one thread, every other one on all that `set_num_threads` allows. With None, the default, each step finds out
        from what it takes, and tries now and then whether it should change.

    Raises
    ------
    TypeError
        If it is neither an integer nor None.
    ValueError
        If it is negative.
    """
    global _parallel_threshold
    threshold = None if n_bytes is None else _integer("n_bytes", n_bytes)
    if threshold is not None and threshold < 0:
        raise ValueError(f"n_bytes must be at least 0, got {threshold}")
    _parallel_threshold = threshold
    _choose_anew()


def get_parallel_threshold() -> int | None:
    """Traffic in bytes from which on steps are parallel.

    Returns
    -------
    int or None
        What `set_parallel_threshold` set; None while steps find out themselves.
    """
    return _parallel_threshold


def available_threads() -> int:
    """Number of threads that a kernel may be launched on in this process, if it is to live; see also `is_foreign_thread`."""
    return 1 if _forked else get_num_threads()


def is_foreign_thread() -> bool:
    """Whether this is a thread that Python did not start."""
    # To ask first whether it is the main thread takes a third of the time, and nearly always it is.
    return threading.get_ident() != _MAIN_THREAD and isinstance(threading.current_thread(), threading._DummyThread)


def _integer(name: str, value: object) -> int:
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer, got {value!r}")


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups of this process may use at a time, None if there is no limit.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are found.
    """
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    """The quota of each of this process's groups and of their ancestors, in version 2 and version 1 of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no name and is mounted at the top, or beside version 1; that is found by its names or by "cpu".
        for mount in [root / "sys/fs/cgroup" / name for name in ((controllers, "cpu") if controllers else (".", "unified"))]:
            group = mount / path.strip("/")
            # Inside of a container the path may be the host's: then only the mount itself is there.
            for folder in (group, *group.parents):
                yield from _quota(folder)
                if folder == mount:
                    break


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return


def _after_fork() -> None:
    global _forked
    _forked = True
    _choose_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    # A child of a process in which another thread compiles would wait for ever for that thread.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
