"""Sophia's estimates of the Hessian, which come from the caller."""

import numpy as np
import pytest

import fastopt
from tests.table import FLOATS, assert_same_bits


def test_an_estimate_is_averaged():
    opt = fastopt.Sophia(np.zeros(3), betas=(0.9, 0.5))
    opt.update_hessian(np.array([4.0, 0.0, -2.0]))
    opt.update_hessian(np.array([0.0, 8.0, -2.0]))
    np.testing.assert_array_equal(opt.state["h"], [1.0, 4.0, -1.5])
    assert opt.step_count == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 7, 1000, 400_001])
def test_it_has_the_bits_of_the_formula(size, dtype):
    rng = np.random.default_rng(size)
    opt = fastopt.Sophia(np.zeros(size, dtype), betas=(0.9, 0.99))
    h = np.zeros(size, dtype)
    for gradient in FLOATS:
        estimate = rng.normal(size=size).astype(gradient)
        estimate.flags.writeable = False
        opt.update_hessian(estimate)
        h = dtype(0.99) * h + dtype(1.0 - 0.99) * estimate.astype(dtype)
        assert_same_bits(opt.state["h"], h)


def test_a_step_divides_by_it_where_it_is_large_and_clips_where_it_is_not():
    w = np.zeros(3)
    opt = fastopt.Sophia(w, lr=0.5, betas=(0.0, 0.0), gamma=0.1, weight_decay=0.0)
    opt.update_hessian(np.array([100.0, 1.0, -5.0]))
    opt.step(np.array([2.0, 2.0, -2.0]))
    np.testing.assert_allclose(w, [-0.5 * 2.0 / (0.1 * 100.0), -0.5, 0.5])


def test_estimates_are_nested_as_the_parameters_and_go_to_the_group_of_each():
    params = {"W": np.zeros((2, 3)), "b": np.zeros(3, np.float32)}
    opt = fastopt.Sophia(params, betas=(0.9, 0.5), by_name={"b": {"betas": (0.9, 0.0)}})
    opt.update_hessian({"W": np.full((2, 3), 2.0), "b": np.full(3, 2.0)})
    np.testing.assert_array_equal(opt.state["h"]["W"], np.ones((2, 3)))
    np.testing.assert_array_equal(opt.state["h"]["b"], np.full(3, 2.0, np.float32))

    flat = fastopt.flatten([np.zeros(3), np.zeros(2)])
    opt = fastopt.Sophia(flat, betas=(0.9, 0.5))
    estimate = flat.like()
    estimate[1][...] = 4.0
    opt.update_hessian(estimate)
    np.testing.assert_array_equal(opt.state["h"].buffer, [0, 0, 0, 2, 2])


BAD = [
    (np.ones(4), ValueError, r"estimate must have the shape \(3,\)"),
    (np.ones(3, int), TypeError, "estimate must be of float32, float64, float16 or bfloat16"),
    ([1.0, 2.0, 3.0], TypeError, "estimate must be a NumPy array"),
]


@pytest.mark.parametrize(("estimate", "error", "message"), BAD)
def test_a_bad_estimate_is_refused_and_changes_nothing(estimate, error, message):
    opt = fastopt.Sophia(np.zeros(3))
    opt.update_hessian(np.ones(3))
    before = opt.state["h"].copy()
    with pytest.raises(error, match=message):
        opt.update_hessian(estimate)
    with pytest.raises(ValueError, match="overlaps"):
        opt.update_hessian(opt.state["h"])
    assert_same_bits(opt.state["h"], before)


def test_a_bad_second_estimate_leaves_the_first_array_alone():
    opt = fastopt.Sophia([np.zeros(3), np.zeros(2)])
    with pytest.raises(ValueError, match=r"estimate\[1\] must have the shape \(2,\)"):
        opt.update_hessian([np.ones(3), np.ones(3)])
    np.testing.assert_array_equal(opt.state["h"][0], 0.0)


def test_frozen_groups_get_no_estimate():
    opt = fastopt.Sophia([{"params": np.zeros(3)}, {"params": np.zeros(2), "frozen": True}])
    opt.update_hessian([np.ones(3), None])
    assert np.all(opt.state["h"][0] > 0)
    np.testing.assert_array_equal(opt.state["h"][1], 0.0)
