"""Scales of variables and gradients, and the search for a rate."""

import numpy as np
import pytest
from matplotlib import pyplot
from scipy.optimize import rosen, rosen_der

import fastopt
from tests.refusal import refused
from tests.table import assert_same_bits

SIZES = np.array([1.0, 1e-6])
CENTER = np.array([2.0, 3e-6])


def stretched(x):
    """A bowl in metres and micrometres."""
    error = (x - CENTER) / SIZES
    return float(error @ error), 2 * error / SIZES


@pytest.mark.parametrize(
    ("x_scale", "bounds"),
    [(SIZES, None), ("bounds", [(-2, 3), (0.0, 5e-6)]), ("auto", [(-2, 3), (0.0, 5e-6)]), ("auto", None)],
    ids=str,
)
def test_one_rate_fits_variables_of_all_sizes(x_scale, bounds):
    x0 = np.array([1.0, 1e-6])
    options = {"lr": 0.05, "maxiter": 5000, "gtol": 1e-3}
    result = fastopt.minimize(stretched, x0, jac=True, bounds=bounds, options={**options, "x_scale": x_scale})
    np.testing.assert_allclose(result.x / SIZES, [2.0, 3.0], atol=1e-3)
    assert result.success
    few = {**options, "maxiter": 60}
    plain = fastopt.minimize(stretched, x0, jac=True, bounds=bounds, options=few)
    assert fastopt.minimize(stretched, x0, jac=True, bounds=bounds, options={**few, "x_scale": x_scale}).fun < 0.5 * plain.fun


def test_points_are_in_the_units_of_the_caller_and_bounds_hold():
    seen = []

    def fun(x):
        seen.append(x.copy())
        return stretched(x)

    bounds = np.array([[0.1, 1.7], [0.0, 2.3e-6]])
    result = fastopt.minimize(fun, [1.0, 1e-6], jac=True, bounds=bounds, options={"lr": 0.1, "x_scale": "auto", "maxiter": 200})
    points = np.array(seen)
    assert np.all((bounds[:, 0] <= points) & (points <= bounds[:, 1]))
    np.testing.assert_array_equal(result.x, bounds[:, 1])
    assert result.success
    np.testing.assert_array_equal(result.jac, stretched(result.x)[1])
    np.testing.assert_array_equal(points[0], [1.0, 1e-6])


def test_steps_in_scaled_variables_are_those_of_the_scaled_function():
    options = {"maxiter": 20, "lr": 0.05, "gtol": None}
    scaled = fastopt.minimize(stretched, [0.5, 1e-6], jac=True, options={**options, "x_scale": [2.0, 2.0**-20]})
    factor = np.array([2.0, 2.0**-20])
    fun = lambda z: (stretched(factor * z)[0], factor * stretched(factor * z)[1])  # noqa: E731
    assert_same_bits(scaled.x, factor * fastopt.minimize(fun, np.array([0.5, 1e-6]) / factor, jac=True, options=options).x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_scaled_runs_go_on_with_the_same_bits(dtype):
    target = np.array([0.3, 0.7], dtype)
    fun = lambda x: (float(np.sum(np.abs(x - target) ** 2)), 2 * (x - target))  # noqa: E731
    options = {"lr": 0.1, "x_scale": [0.3, 7.0], "g_scale": "auto", "gtol": None}
    start = np.ones(2, dtype)
    whole = fastopt.minimize(fun, start, jac=True, options={**options, "maxiter": 30})
    first = fastopt.minimize(fun, start, jac=True, options={**options, "maxiter": 13})
    second = fastopt.minimize(fun, first.x, jac=True, options={**options, "maxiter": 17, "state": first.state})
    assert second.x.dtype == dtype
    np.testing.assert_array_equal(second.x, whole.x)


def test_starts_are_scaled_alike():
    starts = np.array([[0.5, 1e-6], [1.0, 2e-6]])
    fun = lambda points: tuple(np.array(each) for each in zip(*map(stretched, points), strict=True))  # noqa: E731
    solver = fastopt.Solver(starts=starts, lr=0.05, x_scale=SIZES, maxiter=50, gtol=None)
    while not solver.done:
        solver.tell(*fun(solver.ask()))
    for start, row in zip(starts, solver.result().population, strict=True):
        options = {"lr": 0.05, "x_scale": SIZES, "maxiter": 50, "gtol": None}
        assert_same_bits(row, fastopt.minimize(stretched, start, jac=True, options=options).x)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_a_unit_of_gradients_makes_eps_a_share_of_them(unit):
    fun = lambda x: (unit * float((x - 3.0) @ (x - 3.0)), 2.0 * unit * (x - 3.0))  # noqa: E731
    options = {"lr": 0.1, "maxiter": 30, "eps": 1e-2, "gtol": None, "g_scale": "auto"}
    path = fastopt.minimize(fun, np.zeros(2), jac=True, options=options)
    reference = fastopt.minimize(lambda x: (0.0, (x - 3.0) / 3.0), np.zeros(2), jac=True, options={**options, "g_scale": None})
    np.testing.assert_allclose(path.x, reference.x, rtol=1e-12)
    given = fastopt.minimize(fun, np.zeros(2), jac=True, options={**options, "g_scale": 6.0 * unit})
    np.testing.assert_allclose(given.x, reference.x, rtol=1e-12)
    assert fastopt.minimize(lambda x: (0.0, 0 * x), np.zeros(2), jac=True, options=options).nit == 30


BAD = [
    ({"x_scale": "large"}, ValueError, "x_scale must be numbers, 'auto' or 'bounds', got 'large'"),
    ({"x_scale": "bounds"}, ValueError, "x_scale='bounds' needs two finite bounds of each variable, which variable 0 has not"),
    ({"x_scale": [1.0, 0.0]}, ValueError, "x_scale must be finite numbers of more than 0"),
    ({"x_scale": [[1.0, 2.0]]}, ValueError, "x_scale must be finite numbers of more than 0"),
    ({"x_scale": [1.0, 2.0, 3.0]}, ValueError, "one or for each of 2 variables"),
    ({"x_scale": ["a", 1.0]}, TypeError, "x_scale must be finite numbers of more than 0"),
    ({"x_scale": [1j, 1.0]}, TypeError, "x_scale must be finite numbers of more than 0"),
    ({"g_scale": 0.0}, ValueError, "g_scale must be a finite number of more than 0"),
    ({"g_scale": "automatic"}, TypeError, "g_scale must be a real number"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_scales_are_checked(options, error, words):
    with refused(error, words):
        fastopt.Solver([0.0, 1.0], **options)


@pytest.mark.parametrize("x_scale", [1e-60, 1e60, [1.0, 1e-60]])
def test_scales_that_the_dtype_does_not_have_are_refused(x_scale):
    with refused(ValueError, "x_scale must be finite numbers of more than 0", "float32"):
        fastopt.Solver(np.ones(2, np.float32), x_scale=x_scale)
    fastopt.Solver(np.ones(2), x_scale=x_scale)


def test_standing_still_is_told():
    fun = lambda x: (float(x @ x), 2 * x)  # noqa: E731
    x0 = np.full(3, 2000.0, np.float32)
    with pytest.warns(
        RuntimeWarning, match="the first 5 steps of Prodigy have changed no variable: they are smaller than what"
    ):
        still = fastopt.minimize(fun, x0, method="prodigy", jac=True, options={"lr": 1.0, "maxiter": 20})
    assert_same_bits(still.x, x0)
    for options in ({"d0": 1e-3}, {"x_scale": "auto"}):
        moving = fastopt.minimize(fun, x0, method="prodigy", jac=True, options={"lr": 1.0, "maxiter": 200, **options})
        assert moving.fun < 0.5 * still.fun
    fastopt.minimize(fun, x0, jac=True, options={"lr": 0.0, "maxiter": 20})  # as was asked for


def test_one_step_that_changes_nothing_is_no_standing_still():
    """Rprop takes none after the gradient has changed its sign."""
    signs = iter([1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    solver = fastopt.Solver([1.0], "rprop", maxiter=5)
    points = []
    while not solver.done:
        points.append(solver.ask().item())
        solver.tell(None, [next(signs)])
    assert points[5] == points[4] < points[0]


SCALES = [
    {"x_scale": "auto"},
    {"x_scale": "auto", "g_scale": "auto", "bounds": [(-5, None), (None, 5e-6)]},
    {"x_scale": "bounds", "g_scale": 3.0, "bounds": [(-5, 2.5), (-5e-6, 5e-6)]},
]


@pytest.mark.parametrize("options", SCALES, ids=str)
def test_scales_of_the_first_start_go_on(options):
    start = np.array([1.0, 1e-6])

    def points(x0, steps, **more):
        solver = fastopt.Solver(x0, **options, lr=0.1, maxiter=steps, **more)
        while not solver.done:
            solver.tell(*stretched(solver.ask()))
        return solver

    whole = points(start, 12)
    for steps in (0, 1, 5, 11):
        state = points(start, steps).state
        assert_same_bits(points(state["x"], 12 - steps, state=state).ask(), whole.ask())


def test_scales_that_are_given_come_before_those_of_a_state():
    bowl = lambda x: (float(x @ x), 2 * x)  # noqa: E731
    before = fastopt.minimize(
        bowl, [1.0, 2.0], method="sgd", jac=True, options={"x_scale": 2.0, "g_scale": "auto", "maxiter": 3}
    )
    options = {"x_scale": 4.0, "g_scale": 8.0, "lr": 0.5, "maxiter": 1, "state": before.state}
    after = fastopt.minimize(bowl, before.x, method="sgd", jac=True, options=options)
    np.testing.assert_allclose(after.x, before.x - 4.0 * 0.5 * (2 * before.x) * 4.0 / 8.0, rtol=1e-14)


@pytest.mark.parametrize("method", ["adam", "sgd"])
def test_a_range_test_finds_a_rate(method):
    found = fastopt.find_lr(rosen, [-1.2, 1.0], jac=rosen_der, method=method, lowest=1e-6, steps=60)
    assert np.all(np.diff(found.rates) > 0)
    assert found.rates.shape == found.values.shape
    end = int(np.flatnonzero(np.isclose(found.rates, 10 * found.lr))[0])
    assert found.values[end] == found.values[: end + 1].min() < 0.3 * rosen([-1.2, 1.0])
    assert end == len(found.rates) - 1 or found.values[end + 1] > found.values[end]
    run = fastopt.minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method, options={"lr": found.lr, "maxiter": 3000})
    assert run.fun < 0.2 * rosen([-1.2, 1.0])
    ax = found.plot()
    assert ax.get_xscale() == "log"
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.values)
    assert found.plot(ax) is ax
    pyplot.close(ax.figure)


def test_range_tests_end_where_there_is_no_descent():
    with refused(ValueError, "fun must fall with rates between 1e-07 and 10, but nowhere was less than 5"):
        fastopt.find_lr(lambda x: (5.0, np.ones(2)), [0.0, 0.0], jac=True)
    with refused(ValueError, "lowest must be less than highest"):
        fastopt.find_lr(rosen, [0.0, 0.0], jac=rosen_der, lowest=1.0, highest=0.1)
    cliff = lambda x: (float("nan") if x[0] > 1.0 else -x[0], -np.ones(1))  # noqa: E731
    assert np.all(np.isfinite(fastopt.find_lr(cliff, [0.0], jac=True).values))
    odd = lambda x: (float(x @ x), np.where(abs(x) < 0.5, np.nan, 2 * x))  # noqa: E731
    found = fastopt.find_lr(odd, [1.0], jac=True)
    assert found.rates.shape == found.values.shape
    assert np.all(np.diff(found.values) < 0)  # the point before the last is not evaluated again
