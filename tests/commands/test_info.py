"""The command ``info``: every fact is there, and the cache's is true."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.commands import info
from tests.fresh import environment, with_engine


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(info, "ELEMENTS", 2**20)
    monkeypatch.setattr(info, "STEPS", 2)


def facts(text):
    return dict(
        line.split(maxsplit=1) for line in text.replace("CPU quota", "CPU-quota").replace("g layer", "g-layer").splitlines()
    )


@pytest.mark.usefixtures("_quick")
def test_every_fact(capsys):
    fastopt.set_num_threads(2)
    assert main(["info"]) == 0
    found = facts(capsys.readouterr().out)
    assert found["fastopt"] == fastopt.__version__
    assert found["numba"] == numba.__version__
    assert found["NumPy"] == np.__version__
    assert found["Python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert int(found["CPU"].removesuffix(" usable").split(", ")[-1]) >= 1
    assert found["CPU-quota"] == "none" or float(found["CPU-quota"].removesuffix(" CPUs")) > 0
    assert found["threads"] == f"2 (NUMBA_NUM_THREADS = {numba.config.NUMBA_NUM_THREADS})"
    assert found["threading-layer"] in ("omp", "tbb", "workqueue")
    number, unit, _ = found["bandwidth"].split(maxsplit=2)
    assert float(number) > 0
    assert unit == "GB/s"


def test_the_cache_is_filled_and_then_found(tmp_path):
    env = environment(NUMBA_CACHE_DIR=with_engine(tmp_path), NUMBA_NUM_THREADS="1")
    for verb in ("saved to", "loaded from"):
        done = subprocess.run([sys.executable, "-m", "fastopt", "info"], env=env, check=True, capture_output=True, text=True)
        cache = facts(done.stdout)["cache"]
        assert cache.startswith(str(tmp_path))
        assert cache.endswith(f"works (a kernel was {verb} it)")
        assert done.stderr == ""


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("has_lock", [False, True])
def test_the_global_lock_is_named_where_it_is_missing(has_lock, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: has_lock, raising=False)
    assert facts(info.report())["Python"].endswith(", without the global lock)") != has_lock


@pytest.mark.usefixtures("_quick")
def test_a_missing_cache_says_why(monkeypatch):
    def uncached(variant):
        warnings.warn("no folder to write to", RuntimeWarning, stacklevel=2)
        return SimpleNamespace(_cache=SimpleNamespace(cache_path=None))

    monkeypatch.setattr(info, "compiled_span", uncached)
    assert facts(info.report())["cache"] == "does not work: no folder to write to"


@pytest.mark.usefixtures("_quick")
def test_a_kernel_that_was_not_saved_is_noticed(monkeypatch, tmp_path):
    span = SimpleNamespace(_cache=SimpleNamespace(cache_path=str(tmp_path)), cache_hits=0)
    monkeypatch.setattr(info, "compiled_span", lambda variant: span)
    assert facts(info.report())["cache"] == f"{tmp_path} does not work: a kernel was not saved to it"


def test_one_thread_starts_no_layer(monkeypatch):
    def unknown():
        raise ValueError

    monkeypatch.setattr(numba, "threading_layer", unknown)
    assert info._threading_layer().startswith("none started")


def test_a_processor_has_a_name(monkeypatch):
    assert info.cpu_name()
    monkeypatch.setattr(info.Path, "read_text", lambda path: (_ for _ in ()).throw(OSError))
    assert info.cpu_name()


@pytest.mark.parametrize(("variable", "value"), [("NUMBA_DISABLE_JIT", "1"), ("NUMBA_THREADING_LAYER", "none of them")])
def test_what_numba_can_not_do_is_told_and_the_rest_too(variable, value):
    env = environment(**{variable: value}, NUMBA_NUM_THREADS="2")
    done = subprocess.run([sys.executable, "-m", "fastopt", "info"], env=env, check=True, capture_output=True, text=True)
    found = facts(done.stdout)
    assert "not to be had" in found["bandwidth"]
    assert found["fastopt"] == fastopt.__version__
