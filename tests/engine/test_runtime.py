"""How many threads: the CPU quota of a container, and the user's wish."""

from __future__ import annotations

import sys
from pathlib import Path

import numba
import pytest

import fastopt
from fastopt.engine import runtime
from tests import fresh


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # The tightest of the group and its ancestors counts.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
            },
            1.0,
        ),
        # A container sees its own group at the mount, while the path may be the host's.
        ({"proc/self/cgroup": "0::/../host/path\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        ({"proc/self/cgroup": "\nnonsense\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
        # Version 2 beside version 1, and version 1 mounted by one of its names.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/unified/cpu.max": "100000 100000\n"}, 1.0),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert runtime.cpu_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (0.5, 1), (1.0, 1), (1.5, 2), (3.0, 3), (64.0, 4)])
def test_the_default_number_of_threads_respects_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(runtime, "_threads", None)
    monkeypatch.setattr(runtime, "cpu_quota", lambda: quota)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 4)
    assert fastopt.get_num_threads() == threads


def test_set_num_threads_is_what_get_num_threads_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_threads", None)
    for n in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        fastopt.set_num_threads(n)
        assert fastopt.get_num_threads() == n


def test_one_thread_never_takes_the_parallel_route(tmp_path: Path) -> None:
    result = fresh.run(
        """
fastopt.set_num_threads(1)
opt, w = run(size=300_000)
report(threads=runtime.available_threads(), initialized=__import__("numba").np.ufunc.parallel._is_initialized)
""",
        tmp_path,
    )
    assert result == {"threads": 1, "initialized": False}


@pytest.fixture
def _without_global_lock(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(runtime, "_threads", None)


@pytest.mark.usefixtures("_without_global_lock")
def test_without_the_global_lock_steps_have_one_thread_until_more_are_asked_for():
    assert fastopt.get_num_threads() == runtime.available_threads() == 1
    fastopt.set_num_threads(2)
    assert fastopt.get_num_threads() == 2


def test_there_is_a_global_lock_here():
    assert runtime.has_global_lock()
