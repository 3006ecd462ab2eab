"""The average that the schedule-free optimizers are after."""

import pickle

import numpy as np
import pytest

import fastopt
from fastopt.schedules import Warmup
from tests.peers import assert_close, gradients, start
from tests.table import assert_same_bits

BOTH = [fastopt.ScheduleFreeSGD, fastopt.ScheduleFreeAdamW]

every_one = pytest.mark.parametrize("optimizer", BOTH)


def averaged(optimizer, grads, theta, lr):
    """The plain mean of the fast points, which at a constant rate is the average."""
    z = []
    for g in grads:
        optimizer.step(g)
        z.append(optimizer.state["z"].copy())
    return np.mean(z, axis=0)


@every_one
def test_at_a_constant_rate_it_is_the_mean_of_all_fast_points(optimizer):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=20)
    opt = optimizer(theta, lr=0.1)
    expected = averaged(opt, rng.normal(size=(50, 20)), theta, 0.1)
    np.testing.assert_allclose(opt.eval_params(), expected, rtol=1e-12)
    beta = opt._beta(opt.param_groups[0])
    np.testing.assert_allclose(theta, beta * expected + (1 - beta) * opt.state["z"], rtol=1e-12)


@every_one
def test_before_the_first_step_it_is_the_parameters(optimizer):
    theta = np.array([1.0, -3.0])
    np.testing.assert_allclose(optimizer(theta).eval_params(), theta, rtol=1e-15)


@every_one
@pytest.mark.peers
def test_it_is_optaxs(optimizer, optax):
    name = {"ScheduleFreeSGD": "schedule_free_sgd", "ScheduleFreeAdamW": "schedule_free_adamw"}[optimizer.__name__]
    ours, theirs = start(), start()
    opt, other = optimizer(ours, lr=0.02), getattr(optax.contrib, name)(0.02)
    state = other.init(theirs)
    for g in gradients():
        opt.step(g)
        updates, state = other.update(g, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for own, expected in zip(opt.eval_params(), optax.contrib.schedule_free_eval_params(state, theirs), strict=True):
        assert_close(own, np.asarray(expected), own.shape)


@every_one
def test_it_comes_nested_as_the_parameters_are(optimizer):
    params = {"W": np.ones((2, 3), np.float32), "b": [np.zeros(3), np.ones((2, 2), order="F")]}
    opt = optimizer(params, lr=0.1)
    opt.step({"W": np.ones((2, 3)), "b": [np.ones(3), np.ones((2, 2), order="F")]})
    x = opt.eval_params()
    assert x["W"].dtype == np.float32
    assert x["W"].shape == (2, 3)
    assert x["b"][1].shape == (2, 2)
    assert not any(np.shares_memory(new, old) for new, old in ((x["W"], params["W"]), (x["b"][0], params["b"][0])))

    flat = fastopt.flatten({"W": np.ones((2, 3)), "b": np.zeros(3)})
    opt = optimizer(flat, lr=0.1)
    opt.step(flat.like())
    assert opt.eval_params()["W"].shape == (2, 3)

    opt = optimizer([{"params": np.ones(3)}, {"params": {"b": np.zeros(2)}, "lr": 0.5}], lr=0.1)
    opt.step([np.ones(3), {"b": np.ones(2)}])
    first, second = opt.eval_params()
    assert first.shape == (3,)
    assert second["b"].shape == (2,)


@every_one
def test_a_warm_up_from_zero_moves_nothing_at_first_and_weighs_later_steps_more(optimizer):
    theta = np.ones(4)
    opt = optimizer(theta, lr=Warmup(0.5, steps=4))
    opt.step(np.ones(4))
    np.testing.assert_array_equal(theta, 1.0)
    z, weights = [], []
    for step in range(1, 6):
        opt.step(np.ones(4))
        z.append(opt.state["z"].copy())
        weights.append(min(0.5, 0.5 * step / 4) ** 2)
    np.testing.assert_allclose(opt.eval_params(), np.average(z, axis=0, weights=weights), rtol=1e-12)


@every_one
def test_a_weight_that_has_no_place_is_an_error_and_changes_nothing(optimizer):
    theta = np.ones(2)
    opt = optimizer(theta, lr=0.1)
    opt.step(np.ones(2))
    before = theta.copy()
    opt.r = 1e4
    with pytest.raises(ValueError, match=r"the weights of steps become too large: r is 10000\.0"):
        opt.step(np.ones(2))
    assert_same_bits(theta, before)
    assert opt.step_count == 1
    opt.r = 1.0
    opt.step(np.ones(2))
    assert opt.step_count == 2


@every_one
def test_a_run_that_is_resumed_has_the_same_bits(optimizer):
    rng = np.random.default_rng(0)
    theta, grads = rng.normal(size=30), rng.normal(size=(10, 30))
    opt = optimizer(theta, lr=0.1)
    for g in grads[:5]:
        opt.step(g)
    copy = theta.copy()
    resumed = optimizer(copy)
    resumed.load_state_dict(opt.state_dict())
    loaded = pickle.loads(pickle.dumps(opt))
    for g in grads[5:]:
        for each in (opt, resumed, loaded):
            each.step(g)
    for each in (resumed, loaded):
        assert_same_bits(each.eval_params(), opt.eval_params())


def test_there_is_no_average_while_parameters_and_those_of_ema_decay_are_swapped():
    opt = fastopt.ScheduleFreeSGD(np.ones(2), ema_decay=0.5)
    with opt.swap_ema(), pytest.raises(RuntimeError, match="swapped"):
        opt.eval_params()
    assert opt.eval_params().tolist() == [1.0, 1.0]
