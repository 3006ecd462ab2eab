"""Copies of the parameters in another dtype, which steps write."""

import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from tests.refusal import refused
from tests.table import assert_same_bits


def test_copies_follow_from_the_beginning():
    w = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
    low, half = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float16)
    opt = fastopt.SGD(w, lr=0.5, copy_to=low)
    assert_same_bits(low, w.astype(np.float32))
    opt.step(np.ones((2, 3)))
    assert_same_bits(low, w.astype(np.float32))
    opt.param_groups[0]["copy_to"] = half
    assert_same_bits(half, w.astype(np.float16))
    before = low.copy()
    opt.step(np.ones((2, 3)))
    assert_same_bits(low, before)
    assert_same_bits(half, w.astype(np.float16))
    opt.param_groups[0]["copy_to"] = None
    opt.step(np.ones((2, 3)))
    assert not np.array_equal(half, w.astype(np.float16))


@pytest.mark.parametrize("as_bits", [True, False])
def test_bfloat16_has_the_bits_of_ml_dtypes(as_bits):
    rng = np.random.default_rng(0)
    w = (rng.normal(size=1000) * 10.0 ** rng.uniform(-42, 38, size=1000)).astype(np.float32)
    low = np.zeros(1000, np.uint16 if as_bits else ml_dtypes.bfloat16)
    opt = fastopt.SGD(w, lr=1e-3, copy_to=low)
    for _ in range(2):
        assert_same_bits(low.view(np.uint16), w.astype(ml_dtypes.bfloat16).view(np.uint16))
        opt.step(rng.normal(size=1000).astype(np.float32))


def test_copies_are_nested_and_flat_as_the_parameters():
    params = [np.ones((2, 3), order="F"), np.ones(2)]
    copies = [np.zeros((2, 3), np.float32, order="F"), np.zeros(2, np.float16)]
    fastopt.SGD(params, lr=1.0, copy_to=copies).step([np.full((2, 3), 0.5), np.full(2, 0.25)])
    np.testing.assert_array_equal(copies[0], 0.5)
    np.testing.assert_array_equal(copies[1], 0.75)
    flat = fastopt.flatten([np.ones(3), np.ones((2, 2))])
    half = flat.like(np.float16)
    fastopt.SGD(flat, lr=1.0, copy_to=half).step(flat.like())
    np.testing.assert_array_equal(half[1], 1.0)


def test_a_copy_stays_with_its_optimizer_and_goes_into_pickles():
    w, low = np.ones(3), np.zeros(3, np.float32)
    opt = fastopt.SGD(w, lr=1.0, copy_to=low)
    blob = opt.state_dict()
    assert "copy_to" not in blob["groups"][0]
    opt.load_state_dict(blob)
    theirs, copied, loaded = pickle.loads(pickle.dumps((w, low, opt)))
    loaded.step(np.full(3, 0.25))
    np.testing.assert_array_equal(copied, 0.75)
    np.testing.assert_array_equal(theirs, 0.75)
    np.testing.assert_array_equal(low, 1.0)


BAD_COPIES = [
    (np.zeros(3), np.zeros(4, np.float32), ValueError, "copy_to must have the shape (3,) of params, got (4,)"),
    (np.zeros(3), np.zeros(3, np.int64), TypeError, "copy_to must be of float32, float64"),
    (np.zeros(3), np.zeros(3, np.complex64), TypeError, "copy_to must be real as params is, got complex64"),
    (np.zeros(3), [np.zeros(3, np.float32)], TypeError, "copy_to must be a NumPy array, got list"),
    (np.zeros(3), np.zeros(6, np.float32)[::2], ValueError, "copy_to must be contiguous in C order"),
    (np.zeros((2, 2)), np.zeros((2, 2), np.float32, order="F"), ValueError, "copy_to must be contiguous in C order"),
]


@pytest.mark.parametrize(("theta", "low", "error", "words"), BAD_COPIES, ids=lambda value: str(value)[:30])
def test_bad_copies_are_refused(theta, low, error, words):
    with refused(error, words):
        fastopt.SGD(theta, copy_to=low)
    opt = fastopt.SGD(theta)
    with refused(error, words, opt=opt):
        opt.param_groups[0]["copy_to"] = low


def test_copies_must_lie_apart():
    w = np.ones(4)
    with refused(ValueError, "params and copy_to overlap"):
        fastopt.SGD(w, copy_to=w)
    low = np.zeros(4)
    low.flags.writeable = False
    with refused(ValueError, "copy_to is read-only"):
        fastopt.SGD(w, copy_to=low)
    opt = fastopt.Adam(w, copy_to=np.zeros(4))
    with refused(ValueError, "overlap", opt=opt):
        opt.param_groups[0]["copy_to"] = opt.state["m"]
    again = opt.param_groups[0]["copy_to"]
    opt.param_groups[0]["copy_to"] = again  # its own place is free
    with refused(ValueError, "overlaps copy_to", opt=opt):
        opt.step(again)
