"""Norms of gradients, which clip them or are watched, and gradients that are not finite."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.engine.sums import BLOCK
from tests.peers import SHAPES, assert_equal_paths, gradients, start
from tests.refusal import refused
from tests.table import FLOATS, assert_same_bits, every_dtype


def several(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(dtype) for size in (3, 0, BLOCK + 5)]


# Norms


@every_dtype
def test_the_norm_is_that_of_all_gradients_together(dtype):
    params, grads = several(dtype), several(dtype, seed=1)
    opt = fastopt.SGD([{"params": params[:1]}, {"params": params[1:]}], clip_norm=math.inf)
    assert opt.grad_norm is None
    opt.step([grads[:1], grads[1:]])
    expected = np.linalg.norm(np.concatenate(grads).astype(np.float64))
    assert opt.grad_norm == pytest.approx(expected, rel=1e-14)
    opt.clip_norm = None
    assert opt.grad_norm is None


@pytest.mark.peers
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_clipping_by_the_norm_is_that_of_optax(limit, optax):
    def theirs():
        params = start()
        optimizer = optax.chain(optax.clip_by_global_norm(limit), optax.adam(0.01))
        state = optimizer.init(params)
        for g in gradients():
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
            yield [np.asarray(p) for p in params]

    assert_equal_paths(lambda params: fastopt.Adam(params, lr=0.01, clip_norm=limit), theirs())


@pytest.mark.peers
def test_the_norm_is_that_of_pytorch(torch):
    params = start()
    opt = fastopt.SGD(params, clip_norm=math.inf)
    for g in gradients():
        opt.step(g)
        assert opt.grad_norm == pytest.approx(float(torch.nn.utils.get_total_norm([torch.from_numpy(x) for x in g])), rel=1e-13)
    assert len(params) == len(SHAPES)


def test_a_group_is_clipped_by_itself_before_all_together():
    a, b = np.zeros(1), np.zeros(1)
    opt = fastopt.SGD([{"params": a, "clip_norm": 3.0}, {"params": b}], lr=1.0, clip_norm=2.5)
    opt.step([np.array([30.0]), np.array([4.0])])
    # 30 is limited to 3, and then (3, 4) of norm 5 to norm 2.5.
    np.testing.assert_allclose([a[0], b[0]], [-1.5, -2.0], rtol=1e-15)
    assert opt.grad_norm == pytest.approx(math.hypot(30.0, 4.0))
    opt.clip_norm = None
    opt.param_groups[1]["clip_norm"] = lambda step: 0.5 * step
    opt.step([np.array([1.0]), np.array([-4.0])])
    np.testing.assert_allclose([a[0], b[0]], [-2.5, -1.5], rtol=1e-15)


@every_dtype
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_the_norm_has_the_same_bits_for_every_number_of_threads(dtype, threads):
    g = np.random.default_rng(0).normal(size=5 * BLOCK + 77).astype(dtype)
    serial = fastopt.SGD(np.zeros_like(g), clip_norm=1.0)
    serial.step(g)
    fastopt.set_parallel_threshold(0)
    fastopt.set_num_threads(threads)
    parallel = fastopt.SGD(np.zeros_like(g), clip_norm=1.0)
    parallel.step(g)
    assert parallel.grad_norm == serial.grad_norm
    assert_same_bits(parallel.params, serial.params)


@pytest.mark.parametrize("magnitude", [1e-40, 1e-30, 1e30, 3e38])
def test_squares_of_float32_neither_overflow_nor_vanish(magnitude):
    g = np.full(10_000, magnitude, np.float32)
    opt = fastopt.SGD(np.zeros(10_000, np.float32), lr=1.0, clip_norm=0.01 * magnitude, nonfinite="skip")
    opt.step(g)
    assert opt.grad_norm == pytest.approx(100.0 * float(g[0]), rel=1e-12)
    np.testing.assert_allclose(opt.params, -1e-4 * magnitude, rtol=1e-5, atol=np.finfo(np.float32).smallest_subnormal)
    assert opt.skipped_steps == 0


@pytest.mark.parametrize("magnitude", [5e-324, 1e-200, 1e-162, 1e160, 1.7e308])
def test_squares_of_float64_may_leave_its_range(magnitude):
    g = np.full(4, magnitude)
    opt = fastopt.SGD(np.zeros(4), lr=1.0, clip_norm=magnitude, nonfinite="raise")
    opt.step(g)
    if magnitude < 1e308:
        assert opt.grad_norm == pytest.approx(2.0 * magnitude, rel=1e-12)
        np.testing.assert_allclose(opt.params, -0.5 * magnitude, rtol=1e-12, atol=5e-324)
    else:
        assert opt.grad_norm == math.inf  # which it is, rounded; all elements are finite, so nothing is refused
    assert opt.step_count == 1


def test_elements_that_are_masked_out_have_no_part_in_the_norm():
    mask = np.array([True, False])
    opt = fastopt.SGD(np.zeros(2), lr=1.0, mask=mask, clip_norm=1.0, nonfinite="raise")
    opt.step(np.array([2.0, np.nan]))
    np.testing.assert_array_equal(opt.params, [-1.0, 0.0])
    assert opt.grad_norm == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_without_a_word_about_it_nonfinite_gradients_propagate(bad):
    opt = fastopt.SGD(np.zeros(2), lr=1.0, clip_norm=1.0)
    opt.step(np.array([bad, 1.0]))
    # An infinite norm leaves nothing of finite elements, and nobody knows what NaN would leave.
    np.testing.assert_array_equal(opt.params, [np.nan, np.nan if np.isnan(bad) else 0.0])
    assert opt.step_count == 1
    watching = fastopt.SGD(np.zeros(2), lr=1.0, clip_norm=math.inf)
    watching.step(np.array([bad, 1.0]))
    np.testing.assert_array_equal(watching.params, [-bad, -1.0])  # nothing is clipped


# Gradients that are not finite


@given(st.sampled_from(FLOATS), st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_element_is_enough_to_skip_a_step(dtype, size, seed, bad):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=size).astype(dtype)
    opt = fastopt.Adam(theta, nonfinite="skip")
    opt.step(rng.normal(size=size).astype(dtype))
    before = copy.deepcopy((theta, opt.state_dict()))
    g = rng.normal(size=size).astype(dtype)
    g[rng.integers(size)] = bad
    opt.step(g)
    assert opt.skipped_steps == 1
    before[1]["whole"]["skipped_steps"] = 1
    np.testing.assert_equal((theta, opt.state_dict()), before)
    assert not math.isfinite(opt.grad_norm)


def test_an_error_names_the_group_the_array_and_the_first_index():
    params = [{"params": {"W": np.zeros((2, 3)), "b": np.zeros(2)}}, {"params": np.zeros((2, 2), order="F")}]
    opt = fastopt.Adam(params, nonfinite="raise")
    grads = [{"W": np.ones((2, 3)), "b": np.ones(2)}, np.ones((2, 2), order="F")]
    grads[0]["W"][1, 2] = -np.inf
    grads[1][0, 1] = np.nan
    with refused(ValueError, "params[0]['params']['W'] must be finite, got -inf at index (1, 2)", opt=opt):
        opt.step(grads)
    grads[0]["W"][1, 2] = 0.0
    with refused(ValueError, "params[1]['params'] must be finite, got nan at index (0, 1)", opt=opt):
        opt.step(grads)
    assert opt.skipped_steps == 0
    flat = fastopt.flatten({"a": np.zeros(3), "e": np.zeros(0), "c": np.zeros((2, 2))})
    grads = flat.like()
    grads["c"][1, 0] = np.nan
    with refused(ValueError, "params['c'] must be finite, got nan at index (1, 0)"):
        fastopt.SGD(flat, nonfinite="raise").step(grads)
    with refused(ValueError, "params must be finite, got nan at index ()"):
        fastopt.SGD(np.zeros(()), nonfinite="raise").step(np.array(np.nan))


def test_what_a_scale_makes_infinite_is_not_finite():
    opt = fastopt.SGD(np.zeros(3, np.float32), nonfinite="skip")
    opt.step(np.full(3, 1e30, np.float32), scale=1e20)
    assert opt.skipped_steps == 1
    # Nor is what does not fit into the parameter's dtype.
    opt.step(np.full(3, 1e300))
    assert opt.skipped_steps == 2


def test_a_skipped_step_draws_no_noise_and_zeroes_the_gradient():
    g = np.array([np.nan, 1.0])
    opt = fastopt.NoisySGD(np.zeros(2), nonfinite="skip", zero_grad=True)
    before = copy.deepcopy(opt.state_dict()["generator"])
    opt.step(g)
    assert not g.any()
    assert opt.state_dict()["generator"] == before


def test_skipped_steps_and_options_are_saved():
    opt = fastopt.SGD(np.zeros(1), nonfinite="skip", clip_norm=2.0, reduction="sum")
    opt.step(np.array([np.nan]))
    other = fastopt.SGD(np.zeros(1))
    other.load_state_dict(opt.state_dict())
    _, loaded = pickle.loads(pickle.dumps((opt.params, opt)))
    for each in (other, loaded, copy.copy(opt), copy.deepcopy(opt)):
        assert (each.skipped_steps, each.nonfinite, each.clip_norm) == (1, "skip", 2.0)
        assert "clip_norm=2.0, nonfinite='skip', reduction='sum', skipped_steps=1" in repr(each)
