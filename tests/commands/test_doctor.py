"""The command ``doctor``: each check is shown what it complains of, and all of them this machine."""

import subprocess
import sys
from types import SimpleNamespace

import llvmlite.binding
import numba
import numpy as np
import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.commands import doctor, info, timing
from fastopt.engine import cache, runtime
from tests.fresh import environment


@pytest.fixture
def patch(monkeypatch):
    """Set attributes of modules and of Numba's configuration."""

    def apply(place, **values):
        for name, value in values.items():
            monkeypatch.setattr(place, name, value, raising=False)

    return apply


@pytest.fixture
def machine(patch):
    """CPUs that may be used, threads of Numba, and the quota."""

    def apply(usable, count, quota=None):
        patch(info, cpu_count=lambda: usable)
        patch(numba.config, NUMBA_NUM_THREADS=count)
        patch(runtime, cpu_quota=lambda: quota, _threads=None)

    return apply


def llvm(patch, code, **features):
    patch(doctor, compile_span=lambda variant, is_cached: SimpleNamespace(inspect_llvm=lambda: code))
    patch(llvmlite.binding, get_host_cpu_features=lambda: features)


def test_this_machine(capsys, monkeypatch):
    monkeypatch.setattr(info, "ELEMENTS", 2**16)
    monkeypatch.setattr(info, "STEPS", 2)
    monkeypatch.setattr(timing, "cpus_to_be_had", lambda count: 0.01)
    threshold = runtime.get_parallel_threshold()
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines if line[0] != " "].count("good") >= 5
    assert sum(line.startswith(("MEND", "note")) for line in lines) == sum("->" in line for line in lines)
    (place,) = [i for i, line in enumerate(lines) if line.startswith("MEND  load")]
    assert "0.0 of" in lines[place]
    assert runtime.get_parallel_threshold() == threshold
    assert lines[place + 1].strip().startswith("-> wait for them")
    subjects = [finding.subject for finding in doctor.findings()]
    assert len(subjects) == len(set(subjects)) == len(doctor.CHECKS)


def test_the_exit_status_is_0_where_nothing_is_to_be_mended(patch, capsys):
    patch(doctor, CHECKS=(doctor.compiler,))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("good  compiler  Numba ")


def test_a_process_without_compiler():
    env = environment(NUMBA_DISABLE_JIT="1")
    done = subprocess.run([sys.executable, "-m", "fastopt", "doctor"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "-> unset NUMBA_DISABLE_JIT\n" in done.stdout
    assert "vectors" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("variable", "field", "value"),
    [
        ("NUMBA_OPT", "OPT", 0),
        ("NUMBA_LOOP_VECTORIZE", "LOOP_VECTORIZE", 0),
        ("NUMBA_BOUNDSCHECK", "BOUNDSCHECK", 1),
        ("NUMBA_CPU_NAME", "CPU_NAME", "generic"),
    ],
)
def test_settings_that_change_code(patch, variable, field, value):
    assert not doctor.compiler().mend
    patch(numba.config, **{field: value})
    assert doctor.compiler().mend == f"unset {variable}, unless it is meant"


def test_a_cache_that_can_not_be_written(patch):
    patch(info, cache=lambda: (False, "does not work: read-only"))
    found = doctor.kernels()
    assert "read-only" in found.found
    assert "NUMBA_CACHE_DIR" in found.mend


def test_a_cache_of_other_processors(patch, tmp_path):
    patch(info, cache=lambda: (True, "works"))
    patch(numba.config, CACHE_DIR=str(tmp_path))
    assert doctor.kernels() == ("cache", "works", "", "")

    def keep(folder, *names, python=f"py{sys.version_info[0]}{sys.version_info[1]}"):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.{python}.nbi").touch()

    other, names = tmp_path / f"fastopt-{fastopt.__version__}-an-other-0a1b2c3d", [f"loop.{i}_0a1b-0" for i in range(4)]
    keep(other, "loop.9_0a1b-0", python="py27")  # of no use for this Python
    keep(tmp_path / "fastopt-0.0.0-older-0a1b2c3d", *names)
    assert not doctor.kernels().mend
    keep(other, *names)
    keep(cache.folder(), "loop.0_ffff-0")  # what the doctor itself has left there, last time
    for _ in range(2):
        assert doctor.kernels().found == "3 of the 4 kernels for an-other in NUMBA_CACHE_DIR are not there for this one"
        assert "warmup" in doctor.kernels().mend
    keep(cache.folder(), "loop.1_0a1b-0")  # now there is half of them, and the rest may not be needed here
    assert not doctor.kernels().mend
    patch(numba.config, CACHE_DIR="")
    assert not doctor.kernels().mend


def test_code_without_vectors(patch):
    llvm(patch, "%3 = fmul float %1, %2", avx=True)
    assert doctor.vectors().found == "loops take 4 bytes at once, where this processor has vectors of 32"
    assert doctor.vectors().mend
    llvm(patch, "fmul <4 x float>", avx=True)
    assert doctor.vectors().mend
    llvm(patch, "fmul <4 x float>", neon=True)
    assert doctor.vectors() == ("vectors", "loops take 16 bytes at once", "", "")
    llvm(patch, "fmul <vscale x 4 x float>", sve=True)
    assert not doctor.vectors().mend
    llvm(patch, "fmul <4 x float> and fmul <16 x float>", avx=True)
    assert doctor.vectors().found == "loops take 64 bytes at once"


@pytest.mark.parametrize(
    ("usable", "count", "quota", "found", "mend"),
    [
        (8, 8, None, "8 for 8 CPUs", ""),
        (8, 8, 2.0, "2 for 8 CPUs, of which 2 at a time", ""),
        (2, 4, None, "4 threads for 2 CPUs", "NUMBA_NUM_THREADS=2"),
        (4, 4, 1.5, "2 threads for a quota of 1.5 CPUs", "whole CPUs"),
        (4, 1, None, "1 for 4 CPUs", "unset NUMBA_NUM_THREADS"),
        (1, 2, None, "2 threads for 1 CPU:", "NUMBA_NUM_THREADS=1"),
        (4, 4, 0.5, "1 thread for a quota of 0.5 CPUs", "whole CPUs"),
    ],
)
def test_threads_against_cpus(machine, usable, count, quota, found, mend):
    machine(usable, count, quota)
    finding = doctor.threads()
    assert found in finding.found
    assert mend in finding.mend
    assert bool(mend) == bool(finding.mend)


def test_threads_of_a_python_without_its_global_lock(machine, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    machine(4, 4)
    finding = doctor.threads()
    assert finding.found == "1 for 4 CPUs: Python runs without its global lock, where fastopt was not tested"
    assert finding.mend.startswith("set PYTHON_GIL=1")


@pytest.mark.parametrize(
    ("speeds", "found", "mends"),
    [([10.0, 18.0], "10.0 GB/s with 1 thread, 18.0 with 4 (4.5 for each)", False), ([10.0, 7.0], "7.0 with 4", True)],
)
def test_memory_for_one_thread_and_for_all(patch, machine, speeds, found, mends):
    machine(4, 4)
    patch(info, bandwidths=lambda *threads: speeds if threads == (1, 4) else None)
    finding = doctor.bandwidth()
    assert found in finding.found
    assert bool(finding.mend) == mends


def test_one_thread_has_no_layer_and_one_speed(patch, machine):
    machine(1, 1)
    patch(info, bandwidths=lambda *threads: [10.0] * len(threads))
    assert doctor.bandwidth() == ("memory", "10.0 GB/s with 1 thread", "", "")
    assert doctor.layer() == ("threading layer", "none, with one thread", "", "")


def test_a_layer_for_want_of_a_better_one(patch, machine):
    machine(4, 4)
    patch(numba, threading_layer=lambda: "workqueue")
    assert "OpenMP" in doctor.layer().mend
    patch(numba, threading_layer=lambda: "tbb")
    assert doctor.layer() == ("threading layer", "tbb", "", "")


@pytest.mark.parametrize(
    ("variable", "value", "mends"),
    [("OMP_WAIT_POLICY", "ACTIVE", True), ("GOMP_SPINCOUNT", "infinite", True), ("OMP_WAIT_POLICY", "passive", False)],
)
def test_threads_that_never_sleep(monkeypatch, variable, value, mends):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert not doctor.waiting().mend
    monkeypatch.setenv(variable, value)
    assert bool(doctor.waiting().mend) == mends


def test_products_with_more_threads_than_cpus(patch, machine):
    import threadpoolctl

    pools = [{"user_api": "blas", "num_threads": 8}, {"user_api": "openmp", "num_threads": 64}]
    patch(threadpoolctl, threadpool_info=lambda: pools)
    machine(8, 8)
    assert doctor.blas() == ("BLAS", "8 threads", "", "")
    machine(8, 8, quota=1.5)
    assert "OPENBLAS_NUM_THREADS=2 " in doctor.blas().mend
    patch(threadpoolctl, threadpool_info=list)
    assert doctor.blas().found == "1 thread"


def test_products_that_nobody_can_count(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert doctor.blas() == ("BLAS", "not looked at", "", "install threadpoolctl for that")
    assert doctor.report([doctor.blas()]).startswith("note  BLAS  not looked at\n")


@pytest.mark.parametrize(("beside", "hints"), [(2e-5, False), (6.4e-3, True)])
def test_steps_after_products(patch, machine, beside, hints):
    machine(4, 4)
    patch(timing, with_products=lambda: (1e-5, beside))
    finding = doctor.products()
    assert finding.found == f"a step on 4 threads takes 10 µs, and {1e6 * beside:,.0f} right after a matrix product"
    assert ("OPENBLAS_NUM_THREADS=1" in finding.hint and "threads=1" in finding.hint) == hints
    assert not finding.mend
    machine(1, 1)
    assert not doctor.products().hint


@pytest.mark.parametrize(("ratio", "hints"), [(1.1, False), (1.5, True)])
def test_gradients_that_lie_otherwise(patch, ratio, hints):
    patch(timing, with_gradients=lambda: {"in another order": ratio, "off a cache line": 1.0})
    finding = doctor.gradients()
    assert finding.found == f"steps are longer by the factors {ratio} (in another order), 1.0 (off a cache line)"
    assert ("fastopt.flatten(params)" in finding.hint) == hints


def test_gradients_lie_as_they_are_said_to(patch):
    taken = []

    def step_of(gradient):
        taken.append(gradient)
        return lambda: None

    patch(timing, _step_of=step_of)
    assert list(timing.with_gradients()) == ["in another order", "float64 for float32", "off a cache line"]
    orders, widths, places = zip(*((g.flags.c_contiguous, g.itemsize, g.ctypes.data % 64) for g in taken), strict=True)
    assert orders == (True, False, True, True)
    assert widths == (4, 4, 8, 4)
    assert [place == 0 for place in places] == [True, True, True, False]


@pytest.mark.parametrize(
    ("quota", "got", "found", "mends"),
    [
        (None, 3.9, "3.9 of 4 CPUs are to be had", False),
        (None, 2.0, "2.0 of 4 CPUs are to be had: others are at work", True),
        (1.5, 1.5, "1.5 of 1.5 CPUs are to be had", False),
    ],
)
def test_cpus_that_others_use(patch, machine, quota, got, found, mends):
    machine(4, 4, quota)
    patch(timing, cpus_to_be_had=lambda count: got if count == (4 if quota is None else 2) else 0.0)
    assert doctor.load().found == found
    assert bool(doctor.load().mend) == mends


def test_cpus_are_counted_by_the_time_that_they_work():
    assert timing.cpus_to_be_had(1) > 0.0  # and at most 1, where no threads of others in this process wait in a loop


def test_subnormals_that_vanish(patch):
    patch(np, finfo=lambda dtype: SimpleNamespace(tiny=np.float32(1e-45)))  # half of it is 0, as if they were flushed
    assert "-ffast-math" in doctor.subnormals().found
    assert doctor.subnormals().mend


def test_subnormals_that_take_long(patch):
    patch(timing, quickest=lambda *actions: [5e-5, 1e-6])
    found = doctor.subnormals()
    assert found.found == "take 50 times as long"
    assert "flush_subnormals=True" in found.hint
    assert doctor.report([found]).startswith("note  subnormals")


@pytest.mark.parametrize(
    ("failure", "mend"),
    [(ValueError("the layer 'x' is unknown"), "Numba"), (PermissionError("/proc/x"), "let this process use what it names")],
)
def test_what_can_not_be_looked_at_is_to_be_mended(patch, failure, mend):
    def broken():
        raise failure

    patch(doctor, CHECKS=(broken,))
    (found,) = doctor.findings()
    assert found.found == f"can't be looked at: {failure}"
    assert mend in found.mend
