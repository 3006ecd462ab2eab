"""A NaN shows: no comparison and no norm makes a number of it that looks healthy. What is skipped leaves no trace."""

import copy

import numpy as np
import pytest

import fastopt
from tests.table import RULES, TABLE, assert_same_bits, every_rule

# Those whose rates follow from norms: over each tensor, and over everything.
OF_TENSORS = (fastopt.LARS, fastopt.LAMB, fastopt.NovoGrad)
OF_ALL = (fastopt.DoG, fastopt.DoWG, fastopt.Prodigy)

SIZE, AT = 40, 33  # past the first whole vectors


def gradients(steps, seed=0):
    return list(np.random.default_rng(seed).normal(size=(steps, SIZE)))


def with_nan(array):
    array = array.copy()
    array[AT] = np.nan
    return array


def run(row, operand, **options):
    """Three steps, with NaN in one element of an operand of the second one: the optimizer and its parameter."""
    theta = np.random.default_rng(1).normal(size=SIZE)
    opt = row.make(theta, **options)
    first, second, third = gradients(3)
    opt.step(first)
    if operand == "theta":
        theta[AT] = np.nan
    elif operand in row.states:
        opt.state[operand][AT] = np.nan
    opt.step(with_nan(second) if operand == "g" else second)
    opt.step(third)
    return opt, theta


@every_rule
def test_nan_shows_wherever_it_comes_from(row):
    _, healthy = run(row, None)
    for operand in ("theta", "g", *row.states):
        opt, theta = run(row, operand)
        # What theta doesn't depend on, such as an average of it, is NaN itself.
        of_state = np.isnan(opt.state[operand][AT]) if operand in row.states else False
        assert np.isnan(theta[AT]) or of_state, operand
        if row.optimizer not in (*OF_TENSORS, *OF_ALL):
            others = np.arange(SIZE) != AT
            assert_same_bits(theta[others], healthy[others], operand)


OPTIONS = {
    "bounds": {"bounds": (-1.0, 1.0)},
    "cautious": {"cautious": True},
    "clip_value": {"clip_value": 0.5},
    "ema_decay": {"ema_decay": 0.5},
    "flush_subnormals": {"flush_subnormals": True},
    "l1": {"l1": 0.1},
    "mask": {"mask": np.ones(SIZE, bool)},
    "maximize": {"maximize": True},
    "weight_decay": {"weight_decay": 0.1},
    "decoupled_weight_decay": {"weight_decay": 0.1, "decoupled_weight_decay": True},
}
ADAM = next(row for row in RULES if row.optimizer is fastopt.Adam)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_option_hides_nan(options):
    for operand in ("theta", "g", "m", "v"):
        opt, theta = run(ADAM, operand, **options)
        assert np.isnan(theta[AT]), operand
        assert not np.isnan(np.delete(theta, AT)).any()
        if "ema_decay" in options:
            assert np.isnan(opt.ema[AT])


def test_a_cautious_step_is_multiplied_by_its_mask():
    # Liang et al. (2024), algorithm 1: the mask is a factor, so that NaN stays NaN; it counts as an element that isn't stepped.
    w = np.ones(4)
    opt = fastopt.SGD(w, lr=0.25, cautious=True)
    opt.step(np.array([1.0, np.nan, -1.0, 0.0]))
    np.testing.assert_array_equal(w, [0.5, np.nan, 1.5, 1.0])
    opt.step(np.ones(4))
    assert np.isnan(w[1])
    # An infinite step is none that a factor of zero takes back.
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, momentum=0.9, cautious=True)
    opt.state["p"][0] = np.inf
    opt.step(np.array([-1.0, 1.0]))
    np.testing.assert_array_equal(np.isfinite(w), [False, True])


def test_bounds_hold_for_infinite_numbers_and_zeros_keep_their_sign():
    w = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, -1e-9])
    fastopt.SGD(w, lr=1.0, bounds=(0.0, 2.0)).step(np.zeros(6))
    np.testing.assert_array_equal(w, [2.0, 0.0, np.nan, 0.0, 0.0, 0.0])
    assert np.signbit(w).tolist() == [False, False, np.signbit(w[2]), True, False, False]


def of(*optimizers):
    first = {row.optimizer: row for row in reversed(TABLE) if row.optimizer in optimizers}
    return pytest.mark.parametrize("row", first.values(), ids=str)


def two_tensors(row, **options):
    params = [np.random.default_rng(seed).normal(size=SIZE) for seed in (1, 2)]
    return params, row.make(params, **options)


@of(*OF_TENSORS)
def test_nan_in_a_gradient_is_nan_in_all_of_its_tensor(row):
    params, opt = two_tensors(row)
    plain, twin = two_tensors(row)
    for step, (g, h) in enumerate(zip(gradients(3), gradients(3, seed=1), strict=True)):
        opt.step([with_nan(g) if step == 1 else g, h])
        twin.step([g, h])
    assert np.isnan(params[0]).all()
    assert_same_bits(params[1], plain[1])


@pytest.mark.parametrize("operand", ["g", "theta", "start"])
@of(*OF_ALL)
def test_nan_is_nan_in_everything_that_has_one_rate(row, operand):
    params, opt = two_tensors(row)
    for step, (g, h) in enumerate(zip(gradients(3), gradients(3, seed=1), strict=True)):
        if step == 1 and operand != "g":
            (params if operand == "theta" else opt.state["start"])[0][AT] = np.nan
        opt.step([with_nan(g) if step == 1 and operand == "g" else g, h])
    assert np.isnan(params).all()


@pytest.mark.parametrize("operand", ["theta", "m", "v"])
@of(fastopt.LAMB)
def test_norms_of_lamb_have_the_nan_of_all_that_its_step_is_made_of(row, operand):
    params, opt = two_tensors(row)
    opt.step(gradients(2))
    (params if operand == "theta" else opt.state[operand])[0][AT] = np.nan
    opt.step(gradients(2))
    assert np.isnan(params[0]).all()
    assert np.isfinite(params[1]).all()


@of(*OF_TENSORS)
def test_a_norm_of_zero_is_no_nan(row):
    params = [np.zeros(SIZE), np.ones(SIZE)]
    opt = row.make(params)
    opt.step([np.ones(SIZE), np.zeros(SIZE)])
    assert np.isfinite(params).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@of(*OF_TENSORS, *OF_ALL, fastopt.NAdam, fastopt.ASGD, fastopt.ScheduleFreeSGD)
def test_a_skipped_step_leaves_running_scalars_alone(row, bad):
    params, opt = two_tensors(row, nonfinite="skip")
    plain, twin = two_tensors(row)
    for step, (g, h) in enumerate(zip(gradients(4), gradients(4, seed=1), strict=True)):
        if step in (0, 2):
            before = copy.deepcopy((params, opt.state_dict()))
            broken = g.copy()
            broken[AT] = bad
            opt.step([broken, h])
            before[1]["whole"]["skipped_steps"] += 1
            np.testing.assert_equal((params, opt.state_dict()), before)
        opt.step([g, h])
        twin.step([g, h])
    for w, v in zip(params, plain, strict=True):
        assert_same_bits(w, v)
    assert opt.skipped_steps == 2
    assert opt.state_dict()["progress"] == twin.state_dict()["progress"]
