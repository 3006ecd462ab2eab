"""The benchmark's cases are complete and comparable, and its commands print what they say."""

import importlib.util
import json

import numpy as np
import pytest

import fastopt
from bench import startup
from bench.__main__ import main
from bench.cases import CASES, DTYPES
from bench.contenders import CONTENDERS
from bench.limit import LOOPS, streaming_step
from bench.measure import Result, interleaved

OURS, LIMIT, *OTHERS = CONTENDERS


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch):
    monkeypatch.setenv("NPROC", "1")  # main sets it for JAX


def test_every_optimizer_has_a_case():
    public = [getattr(fastopt, name) for name in fastopt.__all__]
    optimizers = {cls for cls in public if isinstance(cls, type) and issubclass(cls, fastopt.Optimizer)}
    assert {case.optimizer for case in CASES} == optimizers - {fastopt.Optimizer}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("case", "other"),
    [
        pytest.param(case, other, id=f"{case.name}-{other.name}", marks=[pytest.mark.peers] if other.requires else [])
        for case in CASES
        for other in OTHERS
        if other.has(case)
    ],
)
def test_contenders_take_the_same_steps(case, dtype, other):
    ours, theirs = OURS.start(case.problem(100, dtype)), other.start(case.problem(100, dtype))
    for _ in range(3):
        ours.step()
        theirs.step()
    assert np.all(ours.theta() != 0)
    assert theirs.theta().dtype == dtype
    np.testing.assert_allclose(theirs.theta(), ours.theta(), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_traffic_is_that_of_the_arrays_a_step_touches(case):
    theta, _, lr = case.problem(8, "float64")[1:]
    optimizer = case.optimizer(theta, lr=lr, **case.hyper)
    assert case.updated == 1 + len(optimizer.state)
    assert case.read == 1 + (np.ndim(lr) > 0)
    assert case.traffic(8, "float64") == 64 * (2 * case.updated + case.read)


@pytest.mark.parametrize("counts", LOOPS, ids=str)
def test_streaming_loop_exists_serial_and_parallel(counts):
    for size in (1, 100_000):
        step = streaming_step(*counts, size, np.dtype(np.float32))
        before = step.args[0].copy()
        step()
        assert np.all(step.args[0] > before)


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


def test_command_prints_a_table_and_writes_json(capsys, tmp_path):
    path = tmp_path / "times.json"
    main(["--quick", "--size", "1000", "--optimizer", "Adam", "--dtype", "float32", "--json", str(path)])
    out = capsys.readouterr().out
    assert "1,000 elements" in out
    header, _, row = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert header == ["optimizer", "dtype", "fastopt", "GB/s", "of limit", *(other.name for other in OTHERS)]
    assert row[:2] == ["Adam", "float32"]
    assert row[2].endswith((" us", " ms"))
    assert all((cell == "-") == bool(other.missing) for cell, other in zip(row[5:], OTHERS, strict=True))
    (record,) = json.loads(path.read_text())["results"]
    assert (record["optimizer"], record["size"], record["bytes"]) == ("Adam", 1000, 28_000)
    assert len(record["seconds"]["fastopt"]) == 3


def test_command_says_what_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    main(["--quick", "--size", "1e14", "--optimizer", "SGD momentum", "--dtype", "float64"])
    out = capsys.readouterr().out
    assert "PyTorch fused is left out: torch must be installed" in out
    assert "optax under jit is left out: jax and optax must be installed" in out
    assert "SGD momentum float64 is left out: it needs" in out
    assert "SGD rate vector" not in out


def test_startup_prints_its_times(capsys, monkeypatch):
    monkeypatch.setattr(startup, "SIZES", (1_000,))
    startup.main(["--repeat", "1"])
    out = capsys.readouterr().out
    assert "import fastopt, in addition" in out
    assert "first step of Adam, 1,000 elements, warm cache" in out
