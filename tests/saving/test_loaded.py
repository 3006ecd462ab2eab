"""Optimizers that are loaded with a model: its own still, or the first step says that they are not; read-only ones load."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import fastopt
from tests.table import assert_same_bits

APART = "its parameters are nobody else's, and stepping them changes no model"
READ_ONLY = r"is read-only, but a step must write to it; give the optimizer .* by opt.rebind\(params\)"

MODELS = {
    "array": lambda: np.ones(5),
    "Fortran": lambda: np.ones((2, 3), order="F"),
    "complex": lambda: np.ones(3, np.complex64),
    "dict": lambda: {"W": np.ones((2, 2)), "b": [np.ones(2), np.ones(1)]},
    "list": lambda: [np.ones(3, np.float32), np.ones(2)],
}

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def each(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [array for item in tree for array in each(item)] if isinstance(tree, list) else [tree]


def mapped(function: Any, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: mapped(function, value) for key, value in tree.items()}
    return [mapped(function, value) for value in tree] if isinstance(tree, list) else function(tree)


def ones(tree: Any) -> Any:
    return mapped(np.ones_like, tree)


def trained(make: Any) -> tuple[Any, fastopt.Adam]:
    model = make()
    optimizer = fastopt.Adam(model, lr=0.1)
    optimizer.step(ones(model))
    return model, optimizer


def by_joblib(folder: Path, value: Any, **options: Any) -> Any:
    joblib.dump(value, folder / "file")
    return joblib.load(folder / "file", **options)


def by_buffers(value: Any) -> Any:
    """With read-only memory, as Ray and Dask do."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


@every_model
def test_what_is_pickled_together_stays_together(make):
    model, optimizer = pickle.loads(pickle.dumps(trained(make)))
    before = copy.deepcopy(model)
    optimizer.step(ones(model))  # a warning would be an error
    assert all(np.all(new != old) for new, old in zip(each(model), each(before), strict=True))


@every_model
def test_the_first_step_says_that_they_came_apart(make, tmp_path):
    model, optimizer = by_joblib(tmp_path, trained(make))
    with pytest.warns(RuntimeWarning, match=APART) as caught:
        optimizer.step(ones(model))
    assert [warning.filename for warning in caught] == [__file__]
    optimizer.step(ones(model))  # and only the first
    assert optimizer.step_count == 3


@every_model
def test_what_the_warning_advises_helps(make, tmp_path):
    model, optimizer = by_joblib(tmp_path, trained(make))
    optimizer.rebind(model)
    optimizer.step(ones(model))
    expected, other = trained(make)
    other.step(ones(expected))
    for new, old in zip(each(model), each(expected), strict=True):
        assert_same_bits(new, old)

    model, optimizer = by_joblib(tmp_path, trained(make))
    model = optimizer.params
    optimizer.step(ones(model))
    for new, old in zip(each(model), each(expected), strict=True):
        assert_same_bits(new, old)


def test_an_estimator_is_told_so_too(tmp_path):
    class Estimator:
        def __init__(self) -> None:
            self.weights = np.zeros(3)
            self.optimizer = fastopt.Adam(self.weights)

    globals()["Estimator"] = Estimator
    Estimator.__qualname__ = "Estimator"
    loaded = by_joblib(tmp_path, Estimator())
    with pytest.warns(RuntimeWarning, match=APART):
        loaded.optimizer.step(np.ones(3))
    loaded = pickle.loads(pickle.dumps(Estimator()))
    loaded.optimizer.step(np.ones(3))
    assert np.all(loaded.weights != 0)


@pytest.mark.parametrize(
    "first",
    [lambda opt: opt.warmup(), lambda opt: opt.step(), lambda opt: opt.step(lr=0.5)],
    ids=["warmup", "accumulated", "lr"],
)
def test_whatever_the_first_step_is(first, tmp_path):
    _, optimizer = by_joblib(tmp_path, trained(MODELS["array"]))
    optimizer.accumulate(np.ones(5))
    with pytest.warns(RuntimeWarning, match=APART):
        first(optimizer)


def test_a_flat_stays_its_optimizer_s(tmp_path):
    flat = fastopt.flatten({"W": np.ones((2, 2)), "b": np.zeros(3)})
    model, optimizer = by_joblib(tmp_path, (flat, fastopt.Adam(flat)))
    optimizer.step(model.like())
    assert optimizer.params is model


def test_copies_beside_their_model_are_silent():
    model, optimizer = trained(MODELS["dict"])
    copy.copy(optimizer).step(ones(model))
    own, deep = copy.deepcopy((model, optimizer))
    deep.step(ones(own))
    optimizer.rebind(mapped(np.copy, model))
    optimizer.step(ones(model))
    assert (optimizer.step_count, deep.step_count) == (2, 2)


def test_an_optimizer_that_is_sent_alone_is_silent():
    # As to a worker, which steps it and sends it back.
    again = pickle.loads(pickle.dumps(trained(MODELS["array"])[1]))
    again.step(np.ones(5))
    assert again.step_count == 2


LOADERS = {
    "mapped": lambda folder, value: by_joblib(folder, value, mmap_mode="r"),
    "buffers": lambda folder, value: by_buffers(value),
}
every_loader = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@every_loader
@every_model
def test_read_only_parameters_load_and_are_refused_where_they_are_stepped(load, make, tmp_path):
    expected, other = trained(make)
    model, optimizer = load(tmp_path, trained(make))
    assert optimizer.step_count == 1
    for mine, its in zip(each(optimizer.params), each(expected), strict=True):
        assert_same_bits(np.asarray(mine), its)
    with pytest.raises(ValueError, match=READ_ONLY):
        optimizer.step(ones(expected))
    with pytest.raises(ValueError, match=READ_ONLY):
        optimizer.warmup()
    assert optimizer.step_count == 1
    model = mapped(np.array, model)
    with pytest.raises(ValueError, match="is read-only"):
        optimizer.rebind(optimizer.params)
    optimizer.rebind(model)
    optimizer.step(ones(model))
    other.step(ones(expected))
    for mine, its in zip(each(model), each(expected), strict=True):
        assert_same_bits(mine, its)


@every_loader
def test_read_only_parameters_are_not_swapped_with_their_averages(load, tmp_path):
    w = np.ones(3)
    _, optimizer = load(tmp_path, (w, fastopt.SGD(w, lr=0.1, ema_decay=0.5)))
    with pytest.raises(ValueError, match=READ_ONLY), optimizer.swap_ema():
        raise AssertionError
    assert optimizer.ema.tolist() == [1, 1, 1]


@every_loader
def test_copies_that_were_loaded_as_read_only_ones_are_the_optimizer_s_own(load, tmp_path):
    w, low = np.ones(3, np.float32), np.zeros(3, np.float16)
    _, optimizer = load(tmp_path, (w, fastopt.SGD(w, lr=0.5, copy_to=low)))
    assert optimizer.copy_to.tolist() == [1, 1, 1]
    optimizer.rebind(model := np.ones(3, np.float32))
    optimizer.step(np.ones(3, np.float32))
    assert optimizer.copy_to.tolist() == model.tolist() == [0.5] * 3


def test_new_optimizers_refuse_read_only_parameters_as_before():
    w = np.ones(3)
    w.flags.writeable = False
    with pytest.raises(ValueError, match="params is read-only"):
        fastopt.SGD(w)
    optimizer = fastopt.SGD(np.ones(2))
    with pytest.raises(ValueError, match=r"params\[1\]\['params'\] is read-only"):
        optimizer.add_param_group({"params": w})
    optimizer.step(np.ones(2))
    assert len(optimizer.param_groups) == 1


def test_an_unused_loaded_optimizer_is_silent(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, optimizer = by_joblib(tmp_path, trained(MODELS["array"]))
        assert repr(optimizer)
        assert optimizer.state_dict()["step_count"] == 1
