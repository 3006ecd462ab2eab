"""Minimization in SciPy's form."""

import itertools
import math
import pickle
import time

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.minimization import METHODS
from tests.minimization.functions import both, bowl, slope
from tests.refusal import refused
from tests.table import assert_same_bits


@pytest.mark.parametrize("method", METHODS)
def test_every_optimizer_is_a_method(method):
    x0 = np.full(5, 2.0)
    result = fastopt.minimize(both, x0, method=method, jac=True, options={"maxiter": 300, "gtol": None})
    assert result.fun < bowl(x0)
    assert (result.nit, result.success, result.x.shape) == (300, True, (5,))
    np.testing.assert_array_equal(x0, 2.0)


def test_the_path_is_that_of_the_optimizer():
    result = fastopt.minimize(rosen, [-1.2, 1.0, 0.5], jac=rosen_der, options={"lr": 0.01, "maxiter": 100, "betas": (0.8, 0.9)})
    w = np.array([-1.2, 1.0, 0.5])
    opt = fastopt.Adam(w, lr=0.01, betas=(0.8, 0.9))
    for _ in range(100):
        opt.step(rosen_der(w))
    assert_same_bits(result.x, w)
    assert result.fun == rosen(w)
    assert (result.nit, result.nfev, result.njev) == (100, 1, 101)  # nobody looked at the objective on the way


@pytest.mark.parametrize("jac", [True, slope, None])
def test_gradients_come_in_three_ways(jac):
    fun = both if jac is True else bowl
    result = fastopt.minimize(fun, [0.0, 10.0], args=(4.0,), jac=jac, tol=1e-4, options={"lr": 0.5, "maxiter": 2000})
    assert result.success
    assert result.status == 0
    np.testing.assert_allclose(result.x, 4.0, atol=1e-4)


def test_float32_stays_and_integers_become_float64():
    single = fastopt.minimize(both, np.zeros(3, np.float32), jac=True, options={"maxiter": 3})
    assert single.x.dtype == np.float32
    assert fastopt.minimize(both, [[0, 1], [2, 3]], jac=True, options={"maxiter": 3}).x.shape == (4,)
    assert fastopt.minimize(bowl, np.zeros(3, np.float32), options={"maxiter": 300, "lr": 0.1}).fun < 1.0


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"gtol": 1e-3}, 0),
        ({"ftol": 1e-6}, 0),
        ({"xtol": 1e-6}, 0),
        ({"maxiter": 2}, 1),
        ({"maxiter": 2, "gtol": None}, 1),
        ({}, 0),
        ({"patience": 5, "ftol": 1e-9}, 4),
        ({"time_limit": 0.0}, 3),
    ],
)
def test_reasons_to_stop(options, status):
    result = fastopt.minimize(both, np.zeros(3), method="SGD", jac=True, options={"lr": 0.1, "maxiter": 5000} | options)
    assert result.status == status
    assert result.success == (status in (0, 4) or options == {"maxiter": 2, "gtol": None})
    assert result.message.endswith(".")
    if status in (0, 4):
        assert 3 < result.nit < 5000
        np.testing.assert_allclose(result.x, 3.0, atol=0.05)


def test_a_time_limit_is_kept(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    result = fastopt.minimize(both, np.zeros(3), jac=True, options={"time_limit": 20.0})
    assert (result.status, result.nit) == (3, 19)


def test_a_stochastic_objective_and_the_best_point():
    rng = np.random.default_rng(0)

    def noisy(x):
        value, g = both(x)
        return value + rng.normal(), g + rng.normal(size=x.shape)

    result = fastopt.minimize(noisy, np.zeros(3), jac=True, options={"lr": 0.3, "maxiter": 400, "best": True})
    values = []

    def record(intermediate_result):
        values.append(intermediate_result.fun)

    rng = np.random.default_rng(0)
    again = fastopt.minimize(noisy, np.zeros(3), jac=True, callback=record, options={"lr": 0.3, "maxiter": 400, "best": True})
    assert again.fun == result.fun <= min(values)
    assert_same_bits(again.x, result.x)


def test_callbacks_of_both_forms_can_stop():
    points = []

    def by_return(x):
        points.append(x.copy())
        return len(points) == 5

    result = fastopt.minimize(both, np.zeros(2), jac=True, callback=by_return)
    assert (result.status, result.success) == (99, False)
    assert (len(points), result.nit) == (5, 5)
    assert_same_bits(points[-1], result.x)  # after each step, as in SciPy

    def by_error(intermediate_result):
        if intermediate_result.nit == 7:
            raise StopIteration

    result = fastopt.minimize(both, np.zeros(2), jac=True, callback=by_error)
    assert (result.nit, result.status, result.success) == (7, 99, False)
    theirs = scipy.optimize.minimize(both, np.zeros(2), jac=True, method="BFGS", callback=by_zeroth)
    assert (theirs.status, theirs.success) == (99, False)


def by_zeroth(intermediate_result):
    raise StopIteration


def test_runs_go_on_from_a_state():
    whole = fastopt.minimize(rosen, [0.0, 0.0], jac=rosen_der, options={"maxiter": 60, "lr": 0.01})
    first = fastopt.minimize(rosen, [0.0, 0.0], jac=rosen_der, options={"maxiter": 25, "lr": 0.01})
    second = fastopt.minimize(rosen, first.x, jac=rosen_der, options={"maxiter": 35, "lr": 0.01, "state": first.state})
    assert_same_bits(second.x, whole.x)


@pytest.mark.parametrize("jac", [True, slope, None])
def test_scipys_own_minimize_takes_the_methods(jac):
    adam = fastopt.scipy_method("adam", lr=0.3, maxiter=500)
    seen = []
    fun = both if jac is True else bowl
    result = scipy.optimize.minimize(
        fun,
        [0.0, 9.0],
        jac=jac,
        method=adam,
        bounds=[(0, 5), (0, None)],
        callback=lambda xk: seen.append(1),
        options={"gtol": 1e-3},
    )
    assert isinstance(result, scipy.optimize.OptimizeResult)
    assert result.success
    assert len(seen) == result.nit
    np.testing.assert_allclose(result.x, 3.0, atol=1e-3)


def test_progress_is_shown(capsys):
    fastopt.minimize(both, np.zeros(2), jac=True, options={"disp": True, "maxiter": 20})
    assert "20/20" in capsys.readouterr().err


BAD = [
    ({"method": "nosuch"}, ValueError, "method must be a class of optimizers or one of adopt, "),
    ({"jac": "4-point"}, TypeError, "jac must be callable, True, None or one of '2-point', '3-point', 'cs', got '4-point'"),
    ({"fun": 3}, TypeError, "fun must be callable"),
    ({"x0": ["a"]}, TypeError, "x0 must hold real or complex numbers, got <U1"),
    ({"options": {"bounds": (0, 1)}}, TypeError, "bounds must be the argument of minimize"),
    ({"options": {"maxiter": None}}, TypeError, "maxiter must be an integer"),
    ({"x0": np.ma.masked_equal([0.0, 1.0], 1.0)}, TypeError, "x0 must have no mask"),
    ({"x0": [[0.0], [1.0, 2.0]]}, TypeError, "x0 must be an array of numbers"),
    ({"x0": None}, TypeError, "a solver must have either x0 or starts, got neither"),
    ({"x0": [None]}, TypeError, "x0 must hold real or complex numbers, got object"),
    ({"callback": 3}, TypeError, "callback must be callable or None"),
    ({"options": 3}, TypeError, "options must be a mapping"),
    ({"options": {"best": 1}}, TypeError, "best must be True or False"),
    ({"options": {"learning_rate": 0.1}}, TypeError, "has no argument 'learning_rate' (here it is 'lr')"),
    ({"tol": "1"}, TypeError, "gtol must be a real number"),
    ({"tol": -1.0}, ValueError, "gtol must be at least 0"),
    ({"options": {"maxiter": 1.5}}, TypeError, "maxiter must be an integer"),
    ({"options": {"patience": -1}}, ValueError, "patience must be at least 0"),
    ({"options": {"nosuch": 1}}, TypeError, "has no argument 'nosuch'"),
    ({"options": {"lr": -1.0}}, ValueError, "lr must be"),
    (
        {"options": {"maxfun": 10}},
        TypeError,
        "has no argument 'maxfun', and there is no such option; the options are maxiter, ",
    ),
    ({"options": {"max_iter": 10}}, TypeError, "has no argument 'max_iter' (did you mean 'maxiter'?)"),
    ({"options": {"nonfinite": "propagate"}}, ValueError, "nonfinite must be 'stop' or 'skip' or 'raise', got 'propagate'"),
    ({"options": {"max_skips": 0}}, ValueError, "max_skips must be at least 1"),
    ({"options": {"interrupt": True}}, ValueError, "interrupt must be 'raise' or 'return'"),
    ({"options": {"starts": [[0.0, 1.0]]}}, TypeError, "starts must be an argument of Solver: minimize has a single one, x0"),
    ({"options": {"callback": print}}, TypeError, "callback must be the argument of minimize, not one of its options"),
    ({"options": {"state": {}}}, ValueError, "it lacks the key 'version'"),
    ({"options": {"state": 3}}, TypeError, "state must be what a result has as its state, got int"),
    ({"options": {"state": {"version": 0, "x": 0, "optimizer": 0, "memories": 0}}}, ValueError, "the version 1, got 0"),
]


@pytest.mark.parametrize(("changes", "error", "words"), BAD, ids=str)
def test_bad_arguments_are_refused(changes, error, words):
    with refused(error, words):
        fastopt.minimize(**({"fun": bowl, "x0": [0.0, 1.0], "jac": slope} | changes))


def test_constraints_are_refused():
    with refused(ValueError, "constraints must be empty"):
        scipy.optimize.minimize(
            bowl, [0.0], jac=slope, method=fastopt.scipy_method("sgd"), constraints=[{"type": "eq", "fun": sum}]
        )


def test_a_state_brings_no_hyper_parameters():
    first = fastopt.minimize(bowl, [0.0, 0.0], jac=slope, options={"maxiter": 3, "lr": 0.1})
    still = fastopt.minimize(bowl, first.x, jac=slope, options={"maxiter": 1, "lr": 0.0, "state": first.state})
    assert_same_bits(still.x, first.x)
    options = {"lr": 0.1, "maxiter": 100, "state": first.state}
    bounded = fastopt.minimize(bowl, first.x, jac=slope, bounds=[(0, 0.5)] * 2, options=options)
    np.testing.assert_array_equal(bounded.x, 0.5)
    free = fastopt.minimize(bowl, bounded.x, jac=slope, options={"lr": 0.1, "maxiter": 300, "state": bounded.state})
    np.testing.assert_allclose(free.x, 3.0, atol=0.1)


def test_callers_can_not_lead_the_optimizer_astray():
    def in_place(x):
        value, g = both(x)
        x[...] = np.nan
        return value, g

    options = {"lr": 0.1, "maxiter": 500}
    plain = fastopt.minimize(both, [0.0], jac=True, options=options)
    assert_same_bits(fastopt.minimize(in_place, [0.0], jac=True, options=options).x, plain.x)
    result = fastopt.minimize(lambda x: 0.5 * x @ x, [1.0, 2.0], jac=lambda x: x, options=options)
    np.testing.assert_allclose(result.x, 0.0, atol=1e-2)
    points = []
    fastopt.minimize(bowl, [0.0], jac=slope, callback=points.append, options={"maxiter": 3, "lr": 0.1})
    assert points[0] < points[1] < points[2]


def test_the_best_point_is_finite_and_failures_are_no_successes():
    def nan_first(x):
        return math.nan if x[0] < 0.05 else bowl(x)

    result = fastopt.minimize(nan_first, [0.06], method="sgd", jac=slope, options={"maxiter": 200, "lr": 0.1, "best": True})
    assert result.fun < 1e-3
    options = {"lr": 1.5, "patience": 20}
    assert not fastopt.minimize(bowl, [1.0, 2.0], method="sgd", jac=slope, options=options).success

    def cliff(x):
        return math.inf if x[0] > 0.2 else float(-x[0])

    options = {"lr": 0.1, "ftol": 1e-9, "maxiter": 20}
    assert not fastopt.minimize(cliff, [0.0], jac=lambda x: -np.ones(1), options=options).success


def test_a_method_for_scipy_is_pickled_and_has_a_tolerance():
    method = pickle.loads(pickle.dumps(fastopt.scipy_method("adam", tol=1e-3, lr=0.1)))
    assert scipy.optimize.minimize(bowl, [0.0], jac=slope, method=method).success


def test_sums_over_several_processes_are_refused():
    # Its tests for stopping would come to other ends in each of them.
    with pytest.raises(TypeError, match="reduce is not for minimize"):
        fastopt.minimize(rosen, [0.0, 1.0], jac=rosen_der, options={"reduce": lambda array: None})
