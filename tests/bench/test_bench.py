"""The benchmark's cases are complete and comparable, and its commands print what they say."""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import time
from itertools import product

import numpy as np
import pytest

import fastopt
from bench import limit, startup, training
from bench.cases import CASES, DTYPES, Case
from bench.contenders import CONTENDERS, Contender
from bench.measure import Result, interleaved
from bench.traffic import Pass, passes
from tests.peers import PEERS

OURS, LIMIT, *OTHERS = CONTENDERS

COMPILING = ("PyTorch compile", "DeepSpeed")  # with a C++ compiler, for minutes


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch):
    monkeypatch.setenv("NPROC", "1")  # main sets it for JAX


@pytest.mark.wide
@pytest.mark.parametrize(
    ("case", "dtype", "other"),
    [
        pytest.param(
            *(case, dtype, other),
            id=f"{case.name}-{dtype}-{other.name}",
            marks=[pytest.mark.peers] * bool(other.requires) + [pytest.mark.thorough] * (other.name in COMPILING),
        )
        for case, dtype, other in product(CASES, DTYPES, OTHERS)
        if other.has(case) and dtype in other.dtypes and not other.missing
    ],
)
def test_contenders_take_the_same_steps(case, dtype, other):
    ours, theirs = OURS.start(case.problem(100, dtype)), other.start(case.problem(100, dtype))
    for _ in range(3):
        ours.step()
        theirs.step()
    assert np.all(ours.theta() != 0)
    assert theirs.theta().dtype == dtype
    np.testing.assert_allclose(theirs.theta(), ours.theta(), rtol=other.tolerance * np.finfo(dtype).eps)


@pytest.mark.peers
def test_all_peers_are_there_in_ci():
    assert "torch" in PEERS
    if os.environ.get("CI"):
        assert [name for name in PEERS if importlib.util.find_spec(name) is None] == []
        assert {other.name for other in OTHERS if other.missing} <= {"DeepSpeed"}  # it compiles for minutes


def test_what_is_missing_is_said(monkeypatch):
    modules = ("numpy.no_such", "no_such.module", "numpy.linalg")
    contender = Contender("nobody", start=None, requires=modules, programs=("g++", "c++"))
    monkeypatch.setattr(shutil, "which", lambda program: program if program == "c++" else None)
    assert contender.missing == ["numpy.no_such", "no_such.module"]
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert contender.missing == ["numpy.no_such", "no_such.module", "g++ or c++"]


def test_cases_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_traffic_is_that_of_the_arrays_a_step_touches(case):
    theta, _, lr = case.problem(8, "float64")[1:]
    optimizer = case.start(theta, lr)
    *first, step = case.passes
    assert step == (1 + len(optimizer.state), 1 + (np.ndim(lr) > 0) + len(optimizer.elements))
    assert len(first) == (optimizer.measure(optimizer.param_groups[0]) is not None)
    assert case.traffic(8, "float64") == 64 * (sum(each.read for each in first) + 2 * step.updated + step.read)


@pytest.mark.parametrize(("name", "moved"), [("SGD", 3), ("SGD rate vector", 4), ("SGD momentum", 5), ("Adam", 7)])
def test_traffic_is_what_the_pages_say(name, moved):
    (case,) = [case for case in CASES if case.name == name]
    assert case.traffic(1, "float32") == 4 * moved


@fastopt.rule
def _descent(theta, g, lr, m, v, start, scale):
    return theta - lr * scale * (g + start), m, v


@fastopt.rule
def _norms(theta, g, lr, m, v, start, one):
    return (g, one * v), (start, g)


class Measuring(fastopt.Optimizer):
    elements = ("start",)

    def __init__(self, params, lr=1.0):
        super().__init__(params, lr=lr)

    def choose(self, hyper):
        return _descent, ("m", "v")

    def coefficients(self, hyper, t):
        return "start", 1.0

    def measure(self, hyper):
        return _norms

    def measure_coefficients(self, hyper, t):
        return "start", 1.0


def test_what_is_measured_first_counts():
    # Of theta, g, m, v and start the measure takes g, v and start.
    assert passes(Measuring(np.zeros(3))) == ((0, 3), (3, 2))
    case = Case("measuring", Measuring, {})
    assert case.arrays == 5
    assert case.traffic(10, "float32") == 40 * (3 + 2 * 3 + 2)
    optimizer = case.start(np.zeros(3), 1.0)
    optimizer.step(np.ones(3))  # such an optimizer does work
    assert np.array_equal(optimizer.params, -np.ones(3))


LOOPS = sorted({counts for case in CASES for counts in case.passes} | {Pass(6, 3), Pass(0, 1), Pass(0, 6)})


@pytest.mark.wide
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("counts", LOOPS, ids=lambda counts: f"{counts.updated}-{counts.read}")
def test_streaming_loop_touches_every_element_of_every_array(counts, parallel):
    rng = np.random.default_rng(0)
    # Whole numbers, whose sums are exact in every order.
    updated, read = [tuple(rng.integers(-9, 10, (count, 10_007)).astype(np.float32)) for count in counts]
    before, kept = np.array(updated), np.array(read)
    result = limit.compiled(counts, np.dtype(np.float32), parallel)(updated, read)
    assert np.array_equal(np.array(read), kept)
    assert np.array_equal(np.array(updated), before + kept.sum(axis=0) if counts.updated else before)
    assert result == (None if counts.updated else kept.sum())


def test_streaming_loops_are_vector_instructions():
    assert platform.machine() in ("x86_64", "AMD64"), "this test reads x86 assembly"
    for counts in LOOPS:
        for parallel in (False, True):
            (assembly,) = limit.jitted(counts, np.dtype(np.float32), parallel).inspect_asm().values()
            packed = re.findall(r"\bv?addps\b.*[xyz]mm", assembly)
            assert len(packed) >= counts.updated + counts.read - 1, (counts, parallel)


@pytest.mark.parametrize("size", [1, 100_000])
def test_streaming_step_makes_all_passes(size, monkeypatch):
    log = []
    compiled = limit.compiled

    def logging(counts, dtype, parallel):
        loop = compiled(counts, dtype, parallel)
        return lambda updated, read: log.append((counts, [*updated, *read])) or loop(updated, read)

    monkeypatch.setattr(limit, "compiled", logging)
    step = limit.streaming_step([Pass(0, 3), Pass(2, 2)], size, np.dtype(np.float32))
    log.clear()
    step()
    (first, measured), (last, all_of_them) = log
    assert (first, last) == ((0, 3), (2, 2))
    assert len({id(array) for array in all_of_them}) == 4
    assert {id(array) for array in measured} <= {id(array) for array in all_of_them}


def test_contenders_take_turns_in_alternating_order():
    log = []
    steps = {name: lambda name=name: log.append(name) for name in "abc"}
    seconds = interleaved(steps, rounds=4, block_seconds=1e-6)
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys("abc", 4)
    blocks = "".join(name for name, before in zip(log, [None, *log], strict=False) if name != before)
    assert blocks == "abc" + "abcbabcba"  # the last of a round is the first of the next


def test_ratios_are_those_of_single_rounds():
    result = Result(CASES[0], "float32", 1000, {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 6.0, 4.0]})
    assert result.ratio("theirs", "ours") == (1.5, 2.0, 2.5)
    assert result.bandwidth("ours") == 12_000 / 2.0


def test_rounds_that_take_long_are_fewer():
    seconds = interleaved({"step": lambda: time.sleep(0.01)}, rounds=15, block_seconds=0.001, long=0.005)
    assert len(seconds["step"]) == 9


def test_startup_prints_its_times(capsys, monkeypatch):
    monkeypatch.setattr(startup, "SIZES", (1_000,))
    monkeypatch.setattr(startup.tempfile, "TemporaryDirectory", lambda: contextlib.nullcontext(os.environ["NUMBA_CACHE_DIR"]))
    startup.main(["--repeat", "1"])
    out = capsys.readouterr().out
    assert "import fastopt, in addition" in out
    assert "first step of Adam, 1,000 elements, warm cache" in out


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in training.CONTENDERS if name != "fastopt"])
def test_contenders_take_the_same_whole_steps(name):
    rng = np.random.default_rng(0)
    thetas, grads = [np.ones(100, np.float32) for _ in range(2)], [np.zeros(100, np.float32) for _ in range(2)]
    ours, theirs = (
        training.CONTENDERS[n](*each) for n, each in zip(("fastopt", name), zip(thetas, grads, strict=True), strict=True)
    )
    for scale in (1e-3, 1.0, np.nan, 1e3):
        fresh = (scale * rng.normal(size=100)).astype(np.float32)
        for g, step in zip(grads, (ours, theirs), strict=True):
            g[...] = fresh
            step()
            assert not g.any()
    assert np.isfinite(thetas[0]).all()
    np.testing.assert_allclose(thetas[1], thetas[0], rtol=4e-6)  # PyTorch divides by the norm plus 1e-6


@pytest.mark.peers
def test_whole_steps_are_printed(capsys):
    training.main(["--size", "1000", "--rounds", "2"])
    printed = capsys.readouterr().out
    for name in ("fastopt", "PyTorch", "in-place NumPy", "streaming limit", "bare", "bounds", "copy_to bfloat16"):
        assert re.search(rf"^{name} +[\d.]+ ms +[\d.]+ \([\d.]+ to [\d.]+\)$", printed, re.MULTILINE), name
