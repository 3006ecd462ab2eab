"""Where a step may run: forked and spawned children, several threads, inside a prange, beside torch; on both common layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fresh

# Every day on one layer, the first: where OpenMP ends forked children, and where workqueue ends a process with two threads.
pytestmark = pytest.mark.wide(by=lambda layer, **others: ("any", *others.items()))
openmp_first = pytest.mark.parametrize("layer", ["omp", "workqueue"])
workqueue_first = pytest.mark.parametrize("layer", ["workqueue", "omp"])

# Large enough for the parallel route.
BIG = """
SIZE = 300_000

def in_fork(function):
    "What function returns in a forked child, as text; the child's death is an error, and so is a hang."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(write, function().encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child died"
    return text

def stepped():
    return bits(run(size=SIZE)[1])
"""


def run(script: str, tmp_path: Path, layer: str) -> dict[str, object]:
    return fresh.run(BIG + script, tmp_path, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")


@workqueue_first
def test_parallel_is_the_route_of_large_arrays(tmp_path: Path, layer: str) -> None:
    result = run(
        """
opt, w = run(size=SIZE)
import numba
report(is_parallel=is_parallel(opt), layer=numba.threading_layer())
""",
        tmp_path,
        layer,
    )
    assert result["layer"] == layer
    assert result["is_parallel"]


@openmp_first
@pytest.mark.parametrize("before", ["fastopt.warmup(fastopt.Adam(np.zeros(SIZE, np.float32)))", "stepped()"])
def test_fork_after_the_parent_compiled_or_ran(tmp_path: Path, layer: str, before: str) -> None:
    result = run(f"{before}\nchild = in_fork(stepped)\nreport(child=child, parent=stepped())", tmp_path, layer)
    assert result["child"] == result["parent"]


@openmp_first
def test_double_fork(tmp_path: Path, layer: str) -> None:
    result = run("stepped()\nreport(child=in_fork(lambda: in_fork(stepped)), parent=stepped())", tmp_path, layer)
    assert result["child"] == result["parent"]


@openmp_first
def test_fork_while_another_thread_steps(tmp_path: Path, layer: str) -> None:
    result = run(
        """
stop = threading.Event()
def forever():
    while not stop.is_set():
        stepped()
thread = threading.Thread(target=forever)
stepped()
thread.start()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this test is about
    children = {in_fork(stepped) for _ in range(10)}
stop.set()
thread.join()
report(children=sorted(children), parent=stepped())
""",
        tmp_path,
        layer,
    )
    assert result["children"] == [result["parent"]]


@openmp_first
def test_spawn(tmp_path: Path, layer: str) -> None:
    (tmp_path / "work.py").write_text(
        "import numpy as np, fastopt\n"
        "def step(size):\n"
        "    w = np.zeros(size, np.float32)\n"
        "    fastopt.Adam(w).step(np.ones(size, np.float32))\n"
        "    return w.tobytes()\n"
    )
    result = run(
        """
sys.path.insert(0, os.getcwd())
import multiprocessing
import work
with multiprocessing.get_context("spawn").Pool(1) as pool:
    here, there = work.step(SIZE), pool.apply(work.step, (SIZE,))
    pool.close()
    pool.join()
report(same=here == there)
""",
        tmp_path,
        layer,
    )
    assert result["same"] is True


@workqueue_first
def test_two_python_threads_at_once(tmp_path: Path, layer: str) -> None:
    result = run(
        """
expected = stepped()
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    results = list(pool.map(lambda _: stepped(), range(40)))
report(expected=expected, results=sorted(set(results)))
""",
        tmp_path,
        layer,
    )
    assert result["results"] == [result["expected"]]


@workqueue_first
def test_a_step_inside_a_users_prange(tmp_path: Path, layer: str) -> None:
    result = run(
        """
import numba
expected, results = stepped(), []
warnings.simplefilter("ignore", numba.core.errors.NumbaWarning)  # "object mode won't allow parallel execution"

def step_one():
    results.append(stepped())

@numba.njit(parallel=True, nogil=True)
def users(n):
    for _ in numba.prange(n):
        with numba.objmode():
            step_one()

users(8)
report(expected=expected, results=results)
""",
        tmp_path,
        layer,
    )
    assert result["results"] == [result["expected"]] * 8


@openmp_first
@pytest.mark.peers
def test_torch_imported_first_and_stepping_too(tmp_path: Path, layer: str) -> None:
    code = """
import torch
torch.set_num_threads(2)
x = torch.ones(1_000_000, requires_grad=True)
x.grad = torch.ones_like(x)
torch.optim.Adam([x], fused=True).step()
"""
    script = "opt, w = run(size=SIZE)\nreport(parent=bits(w), child=in_fork(stepped))"
    with_torch = run(code + script, tmp_path, layer)
    assert with_torch["parent"] == with_torch["child"] == run(script, tmp_path, layer)["parent"]


@workqueue_first
def test_the_users_own_thread_count_is_left_alone(tmp_path: Path, layer: str) -> None:
    result = run("import numba\nnumba.set_num_threads(1)\nstepped()\nreport(n=numba.get_num_threads())", tmp_path, layer)
    assert result["n"] == 1
