"""Flat: many arrays as views of one aligned buffer, and optimizers that step it in one launch."""

import copy
import pickle
from collections import namedtuple

import numpy as np
import pytest

import fastopt
from fastopt.arrays.tree import leaves
from fastopt.engine import launch, steps
from tests.refusal import refused
from tests.table import assert_same_bits, every_dtype, every_rule

Layer = namedtuple("Layer", ["W", "b"])


def params(dtype=np.float64):
    values = np.linspace(-1.0, 1.0, 24).astype(dtype)
    return {
        "first": Layer(values[:12].reshape(3, 4).copy(), [values[12:15].copy()]),
        "F": values[:6].reshape(2, 3).copy("F"),
        "strided": values[::5],
        "empty": np.ones((0, 3), dtype),
        "scale": np.array(0.5, dtype),
    }


def arrays(tree):
    return [leaf for _, leaf in leaves(tree, "")]


def address(array):
    return array.__array_interface__["data"][0]


@every_dtype
def test_flatten_copies_into_views_of_one_aligned_buffer(dtype):
    given = params(dtype)
    flat = fastopt.flatten(given)
    assert (flat.buffer.dtype, flat.buffer.shape) == (dtype, (12 + 3 + 6 + 5 + 0 + 1,))
    assert address(flat.buffer) % 64 == 0
    assert flat.buffer.flags.c_contiguous
    np.testing.assert_equal(flat.tree, params(dtype))
    assert type(flat["first"]) is Layer
    end = address(flat.buffer)
    for view, array in zip(arrays(flat.tree), arrays(given), strict=True):
        assert view.dtype == dtype
        assert not np.shares_memory(view, array)
        if view.size:
            assert address(view) == end
            assert np.shares_memory(view, flat.buffer)
        end += view.nbytes
    assert end == address(flat.buffer) + flat.buffer.nbytes
    flat.buffer[:] = 7.0
    assert all((view == 7.0).all() for view in arrays(flat.tree))
    flat["first"].W[...] = 3.0
    np.testing.assert_array_equal(flat.buffer, np.repeat([3.0, 7.0], [12, 15]))
    np.testing.assert_equal(given, params(dtype))


def test_memory_order_is_kept():
    flat = fastopt.flatten(params())
    assert flat["F"].flags.f_contiguous
    assert not flat["F"].flags.c_contiguous
    assert flat["first"].W.flags.c_contiguous
    assert flat.like()["F"].strides == flat["F"].strides


def test_buffers_of_all_sizes_are_aligned():
    for size in range(1, 40):
        flat = fastopt.flatten(np.ones(size, np.float32))
        assert address(flat.buffer) % 64 == 0
        np.testing.assert_array_equal(flat.tree, np.ones(size))


def test_flatten_takes_read_only_unaligned_and_overlapping_arrays():
    w = np.arange(4.0)
    w.flags.writeable = False
    odd = np.frombuffer(bytearray(25), np.float64, offset=1)
    flat = fastopt.flatten([w, w, w[::-1], odd, np.broadcast_to(5.0, 2)])
    np.testing.assert_array_equal(flat.buffer, [0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0, 0, 0, 0, 5, 5])


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64, "float32", np.dtype(np.float64)], ids=str)
def test_like_is_zeros_of_the_same_layout(dtype):
    flat = fastopt.flatten(params(np.float32))
    like = flat.like() if dtype is None else flat.like(dtype)
    assert like.buffer.dtype == (dtype or np.float32)
    assert like.layout == flat.layout
    assert not like.buffer.any()
    assert address(like.buffer) % 64 == 0
    assert not np.shares_memory(like.buffer, flat.buffer)
    like["first"].b[0][1] = 2.0
    assert like.buffer[13] == 2.0
    assert type(like["first"]) is Layer


@pytest.mark.parametrize("dtype", [np.int32, np.int8, ">f8", object])
def test_like_of_another_dtype_is_refused(dtype):
    with refused(TypeError, "dtype must be float32, float64, complex64, complex128, float16 or bfloat16", str(np.dtype(dtype))):
        fastopt.flatten(np.ones(3)).like(dtype)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([], ValueError, ("params holds no array",)),
        ({"a": [], "b": ()}, ValueError, ("params holds no array",)),
        (None, TypeError, ("params ", "NumPy array", "NoneType")),
        (1.0, TypeError, ("params ", "NumPy array", "float")),
        ({"a": np.ones(3), "b": [1.0]}, TypeError, ("params['b'][0] ", "NumPy array", "float")),
        ([np.ones(3), np.ones(3, int)], TypeError, ("params[1] ", "complex128, float16 or bfloat16", "int64")),
        ([np.ones(3, np.int16)], TypeError, ("params[0] ", "float32, float64, complex64, complex128, float16", "got int16")),
        ([np.ones(3, ">f8")], TypeError, ("params[0] ", "complex128, float16 or bfloat16", ">f8")),
        ([np.ma.masked_array(np.ones(3))], TypeError, ("params[0] ", "NumPy array", "MaskedArray")),
        ([np.ones(3), np.ones(3, np.float32)], TypeError, ("one dtype", "params[0] has float64", "params[1] has float32")),
        ([fastopt.flatten(np.ones(3))], TypeError, ("params[0] ", "NumPy array", "Flat")),
    ],
)
def test_flatten_refuses(bad, error, words):
    with refused(error, *words):
        fastopt.flatten(bad)


@pytest.mark.wide
@every_rule
@every_dtype
def test_optimizer_over_flat_gives_the_bits_of_the_structure(row, dtype):
    structure = params(dtype)
    structure["strided"] = structure["strided"].copy()
    flat = fastopt.flatten(structure)
    grads = flat.like()
    one, other = row.make(structure), row.make(flat)
    for step in range(3):
        grads.buffer[:] = np.sin(np.arange(27.0) + step)
        one.step(grads.tree)
        other.step(grads)
    assert other.params is flat
    for tree, expected in [(flat.tree, structure), *((other.state[name].tree, one.state[name]) for name in row.states)]:
        for (name, actual), array in zip(leaves(tree, ""), arrays(expected), strict=True):
            assert_same_bits(actual, array, name)


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_tensors_of_a_complex_flat_find_their_part_of_a_gradient(mode):
    structure = {"a": np.ones(3, np.complex64), "b": np.full((2, 2), 1j, np.complex64)}
    flat = fastopt.flatten(structure)
    one, other = (fastopt.LARS(params, lr=0.1, complex_mode=mode) for params in (structure, flat))
    for step in range(3):
        grads = flat.like()
        grads.buffer[:] = np.exp(1j * (np.arange(7) + step))
        one.step(grads.tree)
        other.step(np.repeat(grads.buffer, 2)[::2])  # which is copied first
    for name, array in structure.items():
        assert_same_bits(flat.tree[name], array, name)


def test_state_of_flat_has_its_layout():
    flat = fastopt.flatten(params())
    opt = fastopt.Adam(flat)
    opt.step(flat.like(np.float32))
    state = opt.state["m"]
    assert isinstance(state, fastopt.Flat)
    assert state.layout == flat.layout
    state["scale"][...] = 3.0
    assert opt.state["m"].buffer[-1] == 3.0


@pytest.mark.parametrize("make", [fastopt.flatten, lambda tree: tree], ids=["flat", "tree"])
def test_one_launch_for_the_whole_model(make, monkeypatch):
    launches = []
    step_function = launch.step_function

    def counting(parallel):
        run = step_function(parallel)
        return lambda *arguments: launches.append(ended := run(*arguments)) or ended

    monkeypatch.setattr(launch, "step_function", counting)
    model = make({"W": np.ones((3, 4)), "b": np.ones(4)})
    opt = fastopt.SGD(model, lr=0.5)
    for _ in range(2):
        opt.step(make({"W": np.ones((3, 4)), "b": np.ones(4)}))
    assert launches == [steps.DONE] * 2
    np.testing.assert_array_equal(model["W"], np.zeros((3, 4)))


def test_large_flat_model_is_stepped_by_all_threads():
    flat = fastopt.flatten([np.zeros(300_000, np.float32), np.zeros((2, 100_001), np.float32)])
    grads = flat.like()
    grads.buffer[:] = np.arange(flat.buffer.size)
    fastopt.SGD(flat, lr=1.0).step(grads)
    np.testing.assert_array_equal(flat.buffer, -np.arange(flat.buffer.size, dtype=np.float32))


def test_gradients_and_rates_in_other_forms():
    flat = fastopt.flatten({"W": np.ones((2, 2)), "b": np.ones(1)})
    rates = flat.like()
    rates.buffer[:] = np.arange(5.0)
    opt = fastopt.SGD(flat, lr=rates)
    opt.step(np.ones(5))
    np.testing.assert_equal(flat.tree, {"W": np.array([[1.0, 0.0], [-1.0, -2.0]]), "b": np.array([-3.0])})
    assert opt.lr["b"] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        opt.lr["b"][...] = 1.0
    opt.lr = np.full(5, 0.5)
    opt.step(flat.like(np.float32))
    assert opt.lr["W"].shape == (2, 2)


def test_flats_among_arrays():
    model = [fastopt.flatten([np.ones(2), np.ones(3)]), np.ones(4, np.float32)]
    opt = fastopt.SGD(model, lr=1.0, momentum=0.9)
    grads = model[0].like()
    grads[0][...] = 1.0
    opt.step([grads, np.ones(4)])
    np.testing.assert_equal([model[0].tree, model[1]], [[np.zeros(2), np.ones(3)], np.zeros(4)])
    assert isinstance(opt.state["p"][0], fastopt.Flat)


@pytest.mark.parametrize(
    ("grads", "error", "words"),
    [
        (fastopt.flatten({"W": np.ones((2, 3)), "c": np.ones(3)}), ValueError, ("another layout", "like()")),
        (fastopt.flatten({"b": np.ones(3), "W": np.ones((2, 3))}), ValueError, ("another layout",)),
        (fastopt.flatten({"W": np.ones((3, 2)), "b": np.ones(3)}), ValueError, ("another layout",)),
        (fastopt.flatten({"W": np.ones((2, 3), order="F"), "b": np.ones(3)}), ValueError, ("another layout",)),
        (fastopt.flatten([np.ones((2, 3)), np.ones(3)]), ValueError, ("another layout",)),
        (fastopt.flatten({"W": np.ones((2, 3)), "b": np.ones(4)}), ValueError, ("another layout",)),
        (np.ones(8), ValueError, ("(9,)", "got (8,)")),
        (np.ones(9, int), TypeError, ("must be of float32", "got int64")),
        ({"W": np.ones((2, 3)), "b": np.ones(3)}, TypeError, ("Flat", "got dict")),
    ],
)
def test_gradients_and_rates_of_another_layout_are_refused(grads, error, words):
    flat = fastopt.flatten({"W": np.ones((2, 3)), "b": np.ones(3)})
    opt = fastopt.Adam(flat)
    opt.step(flat.like())
    with refused(error, "grads ", *words, opt=opt):
        opt.step(grads)
    with refused(error, "lr ", *words, opt=opt):
        opt.lr = grads


def test_gradient_in_the_memory_of_the_flat_is_refused():
    flat = fastopt.flatten([np.ones(2), np.ones(3)])
    opt = fastopt.Adam(flat)
    for grads in (flat, flat.buffer, flat.buffer[::-1], opt.state["v"], opt.state["m"].buffer):
        with refused(ValueError, "grads overlaps params or its state", opt=opt):
            opt.step(grads)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda flat: pickle.loads(pickle.dumps(flat))], ids=["deepcopy", "pickle"]
)
@every_dtype
def test_copies_of_flat(duplicate, dtype):
    flat = fastopt.flatten(params(dtype))
    twin = duplicate(flat)
    assert twin.layout == flat.layout
    assert address(twin.buffer) % 64 == 0
    assert_same_bits(twin.buffer, flat.buffer)
    np.testing.assert_equal(twin.tree, flat.tree)
    assert not np.shares_memory(twin.buffer, flat.buffer)
    twin["F"][...] = 9.0
    assert (twin.buffer == 9.0).sum() == 6
    fastopt.SGD(twin).step(flat)  # of the same layout


def test_flat_says_what_it_holds():
    assert repr(fastopt.flatten({"b": np.zeros(2)})) == "Flat({'b': array([0., 0.])})"
    with pytest.raises(KeyError):
        fastopt.flatten({"b": np.zeros(2)})["c"]
