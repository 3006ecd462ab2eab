"""The examples run, their gradients are right, and all ways lead to an answer."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import fastopt

FOLDER = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "compare")


@pytest.fixture
def example(request, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module(request.param)


@pytest.mark.parametrize("example", NAMES, indirect=True)
def test_gradients_are_right(example):
    whole = (lambda p: example.misfit(p, slice(None))) if hasattr(example, "misfit") else example.fun
    assert fastopt.check_gradient(whole, example.x0)


@pytest.mark.parametrize("example", ["compare"], indirect=True)
def test_each_way_gets_nearer(example, monkeypatch):
    assert set(NAMES) == set(example.EXAMPLES)
    starts = {name: importlib.import_module(name) for name in NAMES}
    rows = list(example.compare(steps=60))
    assert len(rows) == len(NAMES) * len(example.METHODS)
    for name, method, calls, seconds, result in rows:
        assert 0 < calls <= 200
        assert seconds >= 0.0
        if (name, method) != ("parameter_fit", "L-BFGS-B"):  # whose line search is lost in noise
            assert result < starts[name].quality(np.array(starts[name].x0))
