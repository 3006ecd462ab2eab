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
from fastopt.minimization.differences import differences
from tests.refusal import refused
from tests.table import assert_same_bits


def bowl(x, center=3.0):
    return float(((x - center) ** 2).sum())


def slope(x, center=3.0):
    return 2.0 * (x - center)


def both(x, center=3.0):
    return bowl(x, center), slope(x, center)


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
    "bounds", [[(None, 1.0), (4.0, 5.0), (None, None)], scipy.optimize.Bounds([-np.inf, 4.0, -np.inf], [1.0, 5.0, np.inf])]
)
def test_no_step_leaves_the_bounds(bounds):
    seen = []

    def fun(x):
        seen.append(x.copy())
        return both(x)

    result = fastopt.minimize(fun, [9.0, 0.0, 0.0], jac=True, bounds=bounds, options={"lr": 0.3, "maxiter": 400})
    np.testing.assert_allclose(result.x, [1.0, 4.0, 3.0], atol=1e-3)
    points = np.array(seen)
    assert points[:, 0].max() <= 1.0
    assert points[:, 1].min() >= 4.0
    assert points[:, 1].max() <= 5.0


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


def test_what_is_not_finite_is_no_success():
    result = fastopt.minimize(lambda x: (math.nan, np.full(2, np.nan)), np.zeros(2), jac=True, options={"maxiter": 3})
    assert (result.success, result.status) == (False, 5)
    assert "not finite" in result.message


def test_progress_is_shown(capsys):
    fastopt.minimize(both, np.zeros(2), jac=True, options={"disp": True, "maxiter": 20})
    assert "20/20" in capsys.readouterr().err


BAD = [
    ({"method": "nosuch"}, ValueError, "method must be a class of optimizers or one of adopt, "),
    ({"jac": "4-point"}, TypeError, "jac must be callable, True, None or one of '2-point', '3-point', 'cs', got '4-point'"),
    ({"fun": 3}, TypeError, "fun must be callable"),
    ({"x0": ["a"]}, TypeError, "x0 must hold real or complex numbers, got <U1"),
    ({"bounds": 3}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [("a", "b")] * 2}, TypeError, "bounds must be pairs of numbers or None"),
    ({"options": {"bounds": (0, 1)}}, TypeError, "bounds must be the argument of minimize"),
    ({"options": {"maxiter": None}}, TypeError, "maxiter must be an integer"),
    ({"bounds": [(0, 1)]}, ValueError, "bounds must be a pair for each of 2 variables, got 1 items"),
    ({"bounds": [(1, 0), (0, 1)]}, ValueError, "no lower bound above the upper one"),
    ({"bounds": [(0, np.nan)] * 2}, ValueError, "bounds must have no NaN, got (0.0, nan) for variable 0"),
    ({"bounds": [(0, 1, 2)] * 2}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [(0, 1), (0,)]}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": np.zeros((2, 2), complex)}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": np.ma.masked_equal([[0, 1], [2, 3]], 2)}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [("1", None)] * 2}, TypeError, "bounds must be a real number, got '1'"),
    ({"bounds": scipy.optimize.Bounds([0, 0, 0], 1)}, ValueError, "bounds.lb must have an item for each of 2 variables, got 3"),
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


def test_bounds_hold_for_differences_and_tolerances_too():
    def edge(x):
        return float(-x[0] + 0.0 * np.sqrt(1.0 - x[0]))

    result = fastopt.minimize(edge, [0.5], bounds=[(0, 1)], tol=1e-6, options={"lr": 0.1, "maxiter": 50})
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-6)
    result = fastopt.minimize(bowl, [0.0, 0.0], jac=slope, bounds=[(0, 2)] * 2, tol=1e-6, options={"lr": 0.1})
    assert result.success
    np.testing.assert_array_equal(result.x, 2.0)


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


def test_values_and_gradients_come_in_many_forms():
    result = fastopt.minimize(lambda x: (x - 1) ** 2, [0.0], options={"maxiter": 300, "lr": 0.1, "ftol": 0.0})
    assert isinstance(result.fun, float)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-2)
    fastopt.minimize(bowl, [0.0, 1.0], jac=lambda x: [1, 2], options={"maxiter": 2})
    fastopt.minimize(both, [0.0, 1.0], jac=np.True_, options={"maxiter": 2})
    assert fastopt.minimize(both, np.zeros(2), jac=True, callback=lambda x: np.bool_(True)).nit == 1
    calls = []
    result = fastopt.minimize(lambda x: calls.append(1) or bowl(x), [0.0, 1.0], options={"maxiter": 5})
    assert result.nfev == len(calls)


def test_a_method_for_scipy_is_pickled_and_has_a_tolerance():
    method = pickle.loads(pickle.dumps(fastopt.scipy_method("adam", tol=1e-3, lr=0.1)))
    assert scipy.optimize.minimize(bowl, [0.0], jac=slope, method=method).success


def watched(fun, low, high):
    """A function that must not be called outside of bounds."""

    def call(x):
        assert np.all((np.asarray(low) <= x) & (x <= np.asarray(high))), x
        return fun(x)

    return call


ROOM = [
    ([1.0, 0.0], [1.0, 5.0], [1.0, 3.0]),  # the first is fixed
    ([-2.0, -np.inf], [2.0, 3.0], [2.0, 3.0]),
    ([1.0, 3.0 - 1e-12], [1.0 + 1e-12, 3.0], [1.0, 3.0]),  # narrower than a step
    ([-np.finfo(float).max, 0.0], [np.finfo(float).max, 0.0], [4.0, 0.0]),
]


@pytest.mark.parametrize(("low", "high", "expected"), ROOM, ids=str)
def test_differences_stay_between_the_bounds(low, high, expected):
    fun = watched(lambda x: float((x[0] - 4.0) ** 2 + (x[1] - 3.0) ** 2), low, high)
    result = fastopt.minimize(fun, [1.0, 0.0], bounds=list(zip(low, high, strict=True)), options={"lr": 0.1, "maxiter": 300})
    np.testing.assert_allclose(result.x, expected, atol=1e-3)


def test_a_fixed_variable_on_the_edge_of_the_domain():
    fun = watched(lambda x: math.sqrt(x[0] - 1.0) + (x[1] - 3.0) ** 2, [1.0, 0.0], [1.0, 5.0])
    result = fastopt.minimize(fun, [1.0, 0.0], bounds=[(1, 1), (0, 5)], tol=1e-7, options={"lr": 0.1})
    np.testing.assert_allclose(result.x, [1.0, 3.0], atol=1e-6)
    assert result.nfev == 2 * result.njev  # nothing is asked about a variable that can't move
    theirs = scipy.optimize.minimize(fun, [1.0, 0.0], bounds=[(1, 1), (0, 5)])
    np.testing.assert_allclose(result.x, theirs.x, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_of_differences(dtype):
    x = np.array([0.0, 1.0, -3e4, 2e-3, 5.0, 1e9], dtype)
    slopes = np.array([3.0, -1.0, 0.5, 2.0, 7.0, 0.25])
    sides = np.full(6, -np.inf, dtype), np.full(6, np.inf, dtype)
    sides[1][1] = 1.0  # turned
    room = 1e-3 * np.sqrt(np.finfo(dtype).eps)
    sides[0][3], sides[1][3] = x[3] - room, x[3] + 2 * room  # shortened
    sides[0][4] = sides[1][4] = 5.0  # fixed
    points = []

    def line(point):
        points.append(point.copy())
        assert point.dtype == dtype
        assert point.flags.owndata
        return float(slopes @ (point.astype(np.float64) - x))

    found = differences(line, x, 0.0, sides)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.where(np.arange(6) == 4, 0.0, slopes), rtol=1e-2)
    moves = [np.flatnonzero(point != x).tolist() for point in points]
    assert moves == [[0], [1], [2], [3], [5]]  # each by more than rounding, however large it is
    assert points[1][1] < 1.0
    assert points[3][3] == sides[1][3]


@pytest.mark.parametrize("jac", [None, slope])
def test_bounds_are_exact_in_float32(jac):
    low, high = np.array([0.1, -0.7, 0.3, 1e-50]), np.array([0.2, -0.1, 0.3, 1e300])  # none of them is a number of float32
    nearest = np.float32([0.1, -0.7, 0.3, 0.0])
    assert np.any(nearest < low)
    assert np.any(np.float32(high[:3]) > high[:3])
    seen, bounds = [], np.array([low, high]).T
    for center in (-3.0, 3.0):

        def fun(x, center=center):
            seen.append(x.copy())
            return bowl(x, center)

        own = jac and (lambda x, center=center: slope(x, center))
        options = {"lr": 0.1, "maxiter": 60, "ftol": 0.0}
        result = fastopt.minimize(fun, nearest, method="sgd", jac=own, bounds=bounds, options=options)
        assert result.x.dtype == np.float32
        points = np.array(seen).astype(np.float64)
        inside = (low <= points) & (points <= high)
        assert inside[:, [0, 1, 3]].all()
        assert np.all(points[:, 2] == np.float32(0.3))  # the nearest, as no number lies between
        np.testing.assert_allclose(result.x[:3], np.clip(center, low, high)[:3], rtol=1e-6)


def test_pairs_of_an_array_are_taken_as_a_whole():
    class Whole(np.ndarray):
        def __iter__(self):
            raise AssertionError("looked at one by one")

    pairs = np.tile([0.0, 2.0], (1000, 1)).view(Whole)
    result = fastopt.minimize(bowl, np.zeros(1000), jac=slope, bounds=pairs, options={"lr": 1.0, "maxiter": 5})
    np.testing.assert_array_equal(result.x, 2.0)
    bounds = zip([0, None], [None, 1.5], strict=True)
    by_pairs = fastopt.minimize(bowl, np.zeros(2), jac=slope, bounds=bounds, options={"lr": 0.3})
    np.testing.assert_allclose(by_pairs.x, [3.0, 1.5], atol=1e-3)


def edge_of_the_domain(x):
    with np.errstate(invalid="ignore"):
        return np.sum(x - np.sqrt(x)), 1.0 + 0.5 / np.sqrt(x)


@pytest.mark.parametrize("options", [{}, {"maxiter": 4}, {"ftol": 1e-9}, {"xtol": 1e-9}, {"maxiter": 5}], ids=str)
def test_it_stops_where_it_is_not_finite(options):
    calls = []

    def fun(x):
        calls.append(x.copy())
        return edge_of_the_domain(x)

    # The second element is below 0 after four steps, and the gradient is NaN there.
    result = fastopt.minimize(fun, [1.0, 0.35], method="Signum", jac=True, options={"lr": 0.1, "momentum": 0.0} | options)
    assert (result.success, result.status, result.nit) == (False, 5, 3)
    assert result.message.endswith("After 4 steps element 1 of the gradient is nan, x is the point before.")
    np.testing.assert_allclose(result.x, [0.7, 0.05])
    assert math.isfinite(result.fun)
    assert np.all(np.isfinite(result.jac))
    assert len(calls) == 6


def test_where_it_is_not_finite_is_told():
    result = fastopt.minimize(lambda x: math.nan, [1.0, 2.0])
    assert (result.status, result.nit, result.nfev) == (5, 0, 3)
    assert result.message.endswith("After 0 steps element 0 of the gradient is nan.")
    np.testing.assert_array_equal(result.x, [1.0, 2.0])
    result = fastopt.minimize(bowl, [1.0, np.nan], jac=slope)
    assert result.message.endswith("After 0 steps element 1 of x is nan.")
    result = fastopt.minimize(lambda x: -x.sum(), np.ones(1), method="sgd", jac=lambda x: -np.ones(1), options={"lr": 1e308})
    assert result.message.endswith("After 2 steps element 0 of x is inf, x is the point before.")
    assert (result.nit, result.status) == (1, 5)
    np.testing.assert_array_equal(result.x, 1e308)


def test_what_is_finite_or_asked_for_goes_on():
    large = np.full(2, 1e200)  # whose products are no longer finite
    assert fastopt.minimize(lambda x: 0.0, large, jac=lambda x: large, options={"maxiter": 4}).nit == 4
    gradient = lambda x: np.array([1.0, np.nan])  # noqa: E731
    result = fastopt.minimize(bowl, np.zeros(2), jac=gradient, options={"maxiter": 5, "mask": np.array([True, False])})
    assert result.nit == 5
    assert result.x[1] == 0.0


def test_a_value_that_is_not_finite_stops_it():
    result = fastopt.minimize(lambda x: math.inf, np.zeros(2), jac=lambda x: np.ones(2), options={"maxiter": 5, "ftol": 0.0})
    assert (result.nit, result.nfev, result.status) == (0, 1, 5)
    assert result.message.endswith("After 0 steps the objective is inf.")
    fun = lambda x: (math.nan if x[0] < 0.65 else 1.0, np.ones(1))  # noqa: E731
    result = fastopt.minimize(fun, [1.0], method="sgd", jac=True, options={"lr": 0.1})
    assert (result.nit, result.nfev, result.status, result.fun) == (3, 6, 5, 1.0)
    assert result.message.endswith("After 4 steps the objective is nan, x is the point before.")
    nobody_looks = fastopt.minimize(lambda x: math.inf, np.zeros(2), jac=slope, options={"maxiter": 5})
    assert (nobody_looks.nit, nobody_looks.nfev, nobody_looks.status, nobody_looks.success) == (5, 1, 5, False)


def test_draws_that_are_not_finite_are_taken_again():
    seen = []

    def noisy(x):
        seen.append(x.copy())
        return (math.nan, slope(x)) if len(seen) % 3 == 0 else (bowl(x), slope(x) * (np.inf if len(seen) % 3 == 1 else 1.0))

    options = {"lr": 0.1, "maxiter": 50, "nonfinite": "skip"}
    result = fastopt.minimize(noisy, np.zeros(2), jac=True, options=options)
    plain = fastopt.minimize(both, np.zeros(2), jac=True, options=options)
    assert_same_bits(result.x, plain.x)
    assert (result.nit, result.nfev) == (50, 3 * 51 - 1)
    assert_same_bits(seen[2], seen[3])
    calls = []
    bad_after_two = lambda x: (bowl(x) if calls.append(1) or len(calls) <= 2 else math.nan, slope(x))  # noqa: E731
    result = fastopt.minimize(bad_after_two, np.zeros(2), jac=True, options={**options, "max_skips": 4})
    assert (result.nit, result.nfev, result.status, len(calls)) == (1, 2 + 4 + 1, 5, 7)
    with refused(ValueError, "what is told must be finite, but after 0 steps element 1 of the gradient is inf"):
        fastopt.minimize(bowl, [0.0, 1.0], jac=lambda x: np.array([1.0, np.inf]), options={"nonfinite": "raise"})


ANSWERS = [
    (lambda x: 1j, slope, TypeError, "fun must give a real number, got 1j"),
    (lambda x: None, slope, TypeError, "fun must give a real number, got None"),
    (lambda x: x, slope, TypeError, "fun must give a real number, got an array of shape (2,)"),
    (both, slope, TypeError, "jac=True says that it gives the gradient, too"),
    (bowl, True, TypeError, "fun must give a pair, the objective and its gradient, as jac=True says; got 10"),
    (lambda x: (1j, x), True, TypeError, "fun must give a real number, got 1j"),
    (lambda x: (1.0, 2.0), True, ValueError, "fun with jac=True must give a gradient of 2 elements, got one of shape ()"),
    (lambda x: (1.0, x + 1j), True, TypeError, "fun with jac=True must give a gradient of real numbers, got complex128"),
    (bowl, lambda x: x + 1j, TypeError, "jac must give a gradient of real numbers, got complex128"),
    (bowl, lambda x: None, TypeError, "jac must give a gradient of real numbers, got None"),
    (bowl, lambda x: ["a", "b"], TypeError, "jac must give a gradient of real numbers, got <U1"),
    (bowl, lambda x: [None, 1.0], TypeError, "jac: element 0 of the gradient must be a real number, got None"),
    (bowl, lambda x: [[1.0], [1.0, 2.0]], TypeError, "jac must give a gradient that is an array"),
    (bowl, lambda x: np.ones(3), ValueError, "jac must give a gradient of 2 elements, got one of shape (3,)"),
    (bowl, lambda x: np.ma.masked_less(x, 0.5), TypeError, "jac must give a gradient without a mask"),
    (lambda x: 1j, None, TypeError, "fun must give a real number, got 1j"),
]


@pytest.mark.parametrize(("fun", "jac", "error", "words"), ANSWERS)
def test_answers_of_functions_are_checked_by_name(fun, jac, error, words):
    with refused(error, words):
        fastopt.minimize(fun, [0.0, 2.0], jac=jac, options={"ftol": 0.0})


@pytest.mark.peers
def test_answers_of_other_libraries(optax, torch):
    import jax

    value_and_gradient = jax.value_and_grad(lambda x: ((x - 3.0) ** 2).sum())
    options = {"lr": jax.numpy.float32(0.5), "maxiter": np.int64(300), "ftol": torch.tensor(0.0)}
    result = fastopt.minimize(value_and_gradient, [0.0, 1.0], jac=True, options=options)
    np.testing.assert_allclose(result.x, 3.0, atol=1e-3)

    def of_torch(x):
        point = torch.tensor(x, requires_grad=True)
        value = ((point - 3.0) ** 2).sum()
        value.backward()
        return value, point.grad

    result = fastopt.minimize(of_torch, [0.0, 1.0], jac=True, options=options)
    np.testing.assert_allclose(result.x, 3.0, atol=1e-3)
    with refused(TypeError, "jac must give a gradient that is an array"):
        fastopt.minimize(bowl, [0.0, 1.0], jac=lambda x: torch.ones(2, requires_grad=True))


def test_sums_over_several_processes_are_refused():
    # Its tests for stopping would come to other ends in each of them.
    with pytest.raises(TypeError, match="reduce is not for minimize"):
        fastopt.minimize(rosen, [0.0, 1.0], jac=rosen_der, options={"reduce": lambda array: None})
