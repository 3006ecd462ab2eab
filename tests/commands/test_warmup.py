"""The command ``warmup``: what it compiled, no later process compiles again; and what it can't compile, it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.commands import warmup as ahead
from fastopt.engine.compile import _spans
from tests import fresh

STEPPED = """
for size in (1_000, 30_000, 300_000):
    w = np.zeros(size, np.float32)
    opt = fastopt.SGD(w, momentum=0.9)
    for _ in range(20):
        opt.step(np.ones_like(w))
steps = sum(sum(step_dispatcher(parallel).stats.cache_hits.values()) for parallel in (False, True))
report(hits=used(opt)[0].cache_hits + steps)
"""


def test_no_later_process_compiles_what_was_compiled_ahead_with_one_thread(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = "from fastopt.__main__ import main\n"
    command += 'status = main(["warmup", "--optimizer", "SGD,momentum=0.9", "--dtype", "float32"])\nreport(status=status)'
    assert fresh.run(command, tmp_path, NUMBA_CACHE_DIR=str(cache), NUMBA_NUM_THREADS="1") == {"status": 0}
    assert [len(list(cache.rglob(name))) for name in ("*.nbc", "*serial*.nbc", "*parallel*.nbc")] == [3, 1, 1]
    assert fresh.run(STEPPED, tmp_path, NUMBA_CACHE_DIR=str(cache), NUMBA_NUM_THREADS="2") == {"hits": 3}
    assert len(list(cache.rglob("*.nbc"))) == 3


@pytest.mark.parametrize(
    ("spec", "cls", "arguments"),
    [
        ("Adam", fastopt.Adam, {}),
        ("SGD,momentum=0.9,nesterov=True", fastopt.SGD, {"momentum": 0.9, "nesterov": True}),
        ("Lion,betas=(0.9, 0.95),clip_norm=1e-1", fastopt.Lion, {"betas": (0.9, 0.95), "clip_norm": 0.1}),
        ("Adam,nonfinite='skip'", fastopt.Adam, {"nonfinite": "skip"}),
    ],
)
def test_optimizers_are_named_as_they_are_typed(spec, cls, arguments):
    assert ahead.parsed(spec) == (cls, arguments)


def test_steps_of_rows_find_what_was_compiled_ahead(capsys):
    assert main(["warmup", "--optimizer", "SGD", "--dtype", "float32", "--rows"]) == 0
    assert "touched rows" in capsys.readouterr().out
    w = np.ones((30, 5), np.float32)
    optimizer = fastopt.SGD(w)
    fastopt.warmup(optimizer, rows=True)
    before = set(_spans)
    optimizer.step_rows(np.array([3]), np.ones((1, 5), np.float32))
    assert set(_spans) == before


def test_every_usual_optimizer_can_be_made():
    for spec in ahead.USUAL:
        cls, arguments = ahead.parsed(spec)
        optimizer = cls(np.ones(3), **arguments)
        optimizer.step(np.ones(3))
        assert np.all(optimizer.params < 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "Adamm"], "there is no optimizer 'Adamm'; there are .*AdaBelief"),
        (["--optimizer", "Adam,lr=-1"], "lr must be a finite number of at least 0, got -1"),
        (["--optimizer", "Adam,clip_norm=abs(1)"], "'clip_norm=abs\\(1\\)' must be key=value, with values as Python"),
        (["--optimizer", "Adam,0.1"], "'0.1' must be key=value"),
        (["--optimizer", "Adam,1 +"], "must be key=value"),
        (["--optimizer", "Adam,lr=0.1)("], "must be key=value"),
        (["--optimizer", "Adam,**{'lr': 1}"], "must be key=value"),
        (["--optimizer", "Adam,weight=1"], "Adam has no argument 'weight'"),
        (["--optimizer", "Adam", "--dtype", "float16"], "dtype must be float32 or float64, got 'float16'"),
    ],
)
def test_what_can_not_be_compiled_is_said_before_anything_is(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(fastopt.Optimizer, "warmup", lambda self: pytest.fail("compiled"))
    with pytest.raises(SystemExit):
        main(["warmup", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err)
