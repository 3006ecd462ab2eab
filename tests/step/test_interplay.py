"""Options, schedules, groups, copies and pickles that meet: each of these has once gone wrong."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastopt
from fastopt.schedules import Constant
from tests.refusal import refused
from tests.table import assert_same_bits


def test_a_mean_of_micro_batches_and_a_schedule():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=Constant(1.0))
    opt.accumulate(np.ones(3))
    opt.accumulate(np.full(3, 2.0))
    opt.step()
    np.testing.assert_array_equal(w, -1.5)


def test_a_first_scale_and_a_schedule():
    a, b = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": a}, {"params": b, "lr": Constant(2.0)}], lr=1.0)
    opt.step([np.ones(2), np.ones(2)], scale=0.5)
    assert (a[0], b[0]) == (-0.5, -1.0)


@pytest.mark.parametrize("scale", [1, np.float32(1.0), np.int64(1), np.float64(1.0)])
def test_a_scale_of_one_may_be_any_number(scale):
    a = np.zeros(2)
    opt = fastopt.SGD([{"params": a}], lr=1.0)
    opt.step([np.ones(2)], 0.5)
    opt.step([np.ones(2)], scale)
    np.testing.assert_array_equal(a, -1.5)
    with refused(TypeError, "scale must be a real number", opt=opt):
        opt.step([np.ones(2)], np.ones(1))


def test_a_rule_of_ones_own_may_have_a_state_called_ema():
    @fastopt.rule(state="ema", hyper="lr beta=0.5")
    def average(theta, g, lr, ema, beta, one_minus_beta):
        ema = beta * ema + one_minus_beta * g
        return theta - lr * ema, ema

    w = np.full(2, 10.0)
    opt = average(w, lr=1.0, ema_decay=0.5)
    opt.step(np.ones(2))
    assert (w[0], opt.state["ema"][0], opt.ema[0]) == (9.5, 0.5, 9.75)

    @fastopt.rule(state="theta_ema", hyper="lr")
    def taken(theta, g, lr, theta_ema):
        return theta - lr * g, theta_ema

    with refused(ValueError, "taken can't have a state 'theta_ema'"):
        taken(w, lr=1.0)


def test_a_zeroed_gradient_is_nobody_elses():
    a, b, g = np.zeros(2), np.zeros(2), np.ones(2)
    opt = fastopt.SGD([{"params": a, "zero_grad": True}, {"params": b}], lr=1.0)
    with refused(ValueError, "grads[0] and grads[1] overlap in memory, but zero_grad=True writes to the first", opt=opt):
        opt.step([g, g])
    plain = fastopt.SGD([np.zeros(2), np.zeros(2)], lr=1.0)
    plain.step([g, g])  # which is fine where nothing is written


def test_a_zeroed_gradient_that_is_copied_first_is_no_parameter_state_or_copy():
    a, b = np.zeros((3, 2)), np.ones((2, 3))
    opt = fastopt.SGD([a, b], lr=0.1, zero_grad=True, momentum=0.9)
    with refused(ValueError, "grads[0] and params[1] overlap in memory", opt=opt):
        opt.step([b.T, np.zeros((2, 3))])
    with refused(ValueError, "grads[0] and params[1] overlap in memory", opt=opt):
        opt.step([opt.state["p"][1].T, np.zeros((2, 3))])
    low = np.zeros((3, 2))
    opt = fastopt.SGD(np.ones((3, 2)), lr=0.1, zero_grad=True, copy_to=low)
    with refused(ValueError, "grads and params overlap in memory", opt=opt):
        opt.step(low[::-1])
    g = np.ones(6)
    opt = fastopt.SGD([np.zeros(3), np.zeros(3)], lr=0.1, zero_grad=True)
    with refused(ValueError, "grads[0] and grads[1] overlap in memory", opt=opt):
        opt.step([g[::2], g[:3]])
    opt.step([g[::2], g[1::2]])  # side by side, but apart
    assert not g.any()


def test_a_gradient_that_was_accepted_is_looked_at_anew_when_memory_is_added():
    base = np.ones(8)
    g = base[:4]
    opt = fastopt.SGD(np.zeros(4), lr=1.0)
    opt.step(g)
    opt.param_groups[0]["copy_to"] = g
    with refused(ValueError, "grads overlaps copy_to", opt=opt):
        opt.step(g)
    opt = fastopt.SGD(np.zeros(4), lr=1.0)
    g = base[4:]
    opt.step(g)
    opt.add_param_group({"params": g})
    with refused(ValueError, "overlaps params[1]['params']", opt=opt):
        opt.step([g, np.ones(4)])


def test_copies_keep_the_parameters_while_averages_are_swapped_in():
    w, low = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, ema_decay=0.5, copy_to=low)
    opt.step(-np.ones(2))
    with opt.swap_ema():
        with pytest.raises(RuntimeError, match="swapped"):
            opt.step(np.ones(2), scale=0.5)
        opt.lr = 0.5
        opt.clip_norm = 1.0
    assert (w[0], low[0]) == (1.0, 1.0)


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_states_of_a_complex_flat(mode):
    flat = fastopt.flatten({"a": np.zeros(2, complex), "b": np.zeros((3, 1), complex)})
    opt = fastopt.Adam(flat, lr=1.0, ema_decay=0.5, complex_mode=mode)
    grads = flat.like()
    grads.buffer[...] = np.arange(1, 6) * (1 - 1j)
    opt.step(grads)
    np.testing.assert_allclose(opt.state["m"]["b"], 0.1 * grads["b"])
    np.testing.assert_allclose(opt.ema["a"], 0.5 * flat["a"])
    assert opt.state["v"]["b"].dtype == (np.float64 if mode == "modulus" else np.complex128)
    of_copies = fastopt.Adam(flat.like(), lr=1.0, ema_decay=0.5, complex_mode=mode)
    of_copies.step(np.repeat(grads.buffer, 2)[::2])  # which has gaps
    assert_same_bits(of_copies.params.buffer.view(float), flat.buffer.view(float))


def test_an_optimizer_of_moduli_is_copied_after_a_state_was_switched_off():
    z = np.zeros(2, complex)
    opt = fastopt.SGD(z, lr=0.1, momentum=0.9, complex_mode="modulus")
    opt.step(np.ones(2, complex))
    opt.param_groups[0]["momentum"] = 0.0
    twin = copy.deepcopy(opt)
    twin.param_groups[0]["momentum"] = opt.param_groups[0]["momentum"] = 0.9
    for each in (opt, twin):
        each.step(np.full(2, 1j))
    np.testing.assert_array_equal(twin.params, z)


@pytest.mark.parametrize("dtype", [np.float16, np.uint16])
def test_flats_of_16_bits_are_copied_and_pickled(dtype):
    flat = fastopt.flatten({"a": np.ones(2), "b": np.ones(3)})
    opt = fastopt.SGD(flat, lr=1.0, copy_to=flat.like(dtype))
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        twin.step(flat.like())
        copied = twin.param_groups[0]["copy_to"]
        assert (copied.buffer.dtype, copied["b"].shape) == (dtype, (3,))
        np.testing.assert_array_equal(copied.buffer, opt.param_groups[0]["copy_to"].buffer)


@pytest.mark.parametrize("decay", [0.5, 0.999, 0.9999, 0.3, 0.0])
def test_the_average_of_what_stands_still_is_exact(decay):
    w = np.random.default_rng(0).standard_normal(100, np.float32)
    opt = fastopt.SGD(w, lr=0.0, ema_decay=decay)
    for _ in range(1000):
        opt.step(np.zeros_like(w))
    assert_same_bits(opt.ema, w)
    opt.lr = 1.0
    opt.step(w.copy())
    if decay == 0.0:
        assert_same_bits(opt.ema, w)


@pytest.mark.parametrize("options", [{"clip_norm": 0.5}, {"weight_decay": 0.1}, {"ema_decay": 0.5}, {"bounds": (0.0, 1.0)}])
def test_warmup_before_and_after_steps_of_groups(options):
    opt = fastopt.SGD([{"params": np.zeros(2)}], lr=1.0, **options)
    opt.warmup()
    opt.step([np.ones(2)])
    opt.warmup()
    opt.step([np.ones(2)])
    assert opt.step_count == 2


def test_bounds_change_between_numbers_and_arrays():
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0, bounds=(-1.0, 1.0))
    opt.step(np.full(3, 2.0))
    opt.param_groups[0]["bounds"] = (np.full(3, -5.0), 1.0)
    opt.step(np.full(3, 2.0))
    np.testing.assert_array_equal(w, -3.0)
    opt.param_groups[0]["bounds"] = (-4.0, 1.0)
    opt.step(np.full(3, 2.0))
    np.testing.assert_array_equal(w, -4.0)
    a, b = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": a}, {"params": b, "bounds": (np.full(2, -1.0), 1.0)}], lr=1.0)
    opt.step([np.full(2, 2.0)] * 2)
    opt.param_groups[1]["bounds"] = (-5.0, 5.0)
    opt.step([np.full(2, 2.0)] * 2)
    assert (a[0], b[0]) == (-4.0, -3.0)


def test_copies_are_not_part_of_state_dicts():
    w, low = np.zeros(2), np.zeros(2, np.float32)
    copying, plain = fastopt.SGD(w, lr=1.0, copy_to=low), fastopt.SGD(np.zeros(2), lr=1.0)
    w[...] = 3.0
    copying.load_state_dict(plain.state_dict())  # keeps its copies, and brings them up to date
    np.testing.assert_array_equal(low, 3.0)
    copying.step(np.ones(2))
    np.testing.assert_array_equal(low, 2.0)
    plain.load_state_dict(copying.state_dict())
    blob = copying.state_dict()
    blob["groups"][0]["copy_to"] = low
    with refused(ValueError, "unknown key 'copy_to'", opt=plain):
        plain.load_state_dict(blob)


def test_norms_that_overflow_leave_no_nan():
    w = np.zeros(4)
    opt = fastopt.SGD([{"params": w, "clip_norm": 1.0}], lr=1.0, clip_norm=1.0, nonfinite="skip")
    opt.step([np.full(4, 1.7e308)])
    assert np.isfinite(w).all()
    assert opt.grad_norm == math.inf


def test_masked_elements_keep_their_subnormal_state_and_average():
    opt = fastopt.SGD(
        np.zeros(2, np.float32), lr=1.0, momentum=0.5, mask=np.array([True, False]), flush_subnormals=True, ema_decay=0.5
    )
    opt.state["p"][:] = 1e-40
    opt.ema[:] = 1e-40
    opt.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(opt.state["p"] != 0, [False, True])
    np.testing.assert_array_equal(opt.ema != 0, [False, True])


def test_a_group_that_can_not_be_added_leaves_nothing_behind():
    @fastopt.rule(state="m", hyper="lr")
    def unpaired(theta, g, lr, m):
        return theta - lr * float(g), m

    opt = unpaired(np.zeros(2), lr=1.0, complex_mode="modulus")
    with pytest.raises(TypeError):
        opt.add_param_group({"params": np.zeros(2, complex)})
    assert len(opt.param_groups) == 1
    assert opt.params.shape == (2,)


def test_a_group_that_a_schedule_adds_is_scaled_too():
    later = np.zeros(2)

    def lr(step):
        if step == 1:
            opt.add_param_group({"params": later, "lr": 1.0})
        return 1.0

    opt = fastopt.SGD([{"params": np.zeros(2)}], lr=lr)
    opt.step([np.ones(2)])
    opt.step([np.ones(2), np.ones(2)], scale=0.5)
    np.testing.assert_array_equal(later, -0.5)


def test_frozen_parameters_need_no_gradient():
    opt = fastopt.SGD(np.zeros(2), lr=1.0, frozen=True)
    opt.step(None)
    assert opt.step_count == 1


def test_odd_arrays_for_copies_are_refused():
    with refused(TypeError, "copy_to must be a NumPy array, got"):
        fastopt.SGD(np.zeros(2), copy_to="bfloat16")
