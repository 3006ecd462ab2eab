"""Stopping under noise."""

import pickle

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.minimization import noise
from fastopt.minimization.noise import Plateau, _mean, _slope, is_flat
from fastopt.minimization.stopping import Told
from tests.table import assert_same_bits


def noisy_bowl(seed, spread=1.0):
    rng = np.random.default_rng(seed)

    def fun(x):
        error = x - 3.0
        return float(error @ error + spread * rng.normal()), 2.0 * error + spread * rng.normal(size=x.shape)

    return fun


@pytest.mark.parametrize("method", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("seed", range(3))
def test_it_stops_at_the_end_of_the_descent(method, seed):
    options = {"lr": 0.02, "maxiter": 20_000, "noisy": True}
    result = fastopt.minimize(noisy_bowl(seed), np.zeros(10), method=method, jac=True, options=options)
    assert (result.status, result.success) == (7, True)
    assert 100 < result.nit < 2000
    assert np.linalg.norm(result.x - 3.0) < 0.05 * np.linalg.norm(np.full(10, 3.0))
    assert abs(result.fun) < 1.0
    assert result.gain - 3 * result.gain_error < 0.1
    assert result.gain_error > 0.0


SIGNS = [
    ((-0.9, 1.0, 0.5, 1.0), True),
    ((-1.1, 1.0, 5.0, 1.0), False),
    ((5.0, 1.0, -1.1, 1.0), False),
    ((-0.6, 1.0, -0.6, 1.0), False),  # neither alone says it
    ((-1.2, 2.0, -0.03, 0.1), True),
    ((0.0, 0.0, 0.0, 0.0), True),
    ((-1e-9, 0.0, 1.0, 0.0), False),  # without noise every fall counts
]


@pytest.mark.parametrize(("signs", "expected"), SIGNS)
def test_weak_signs_of_a_descent_count_together(signs, expected):
    assert is_flat(*signs) == expected


def plateau_of(fall, steps=800):
    """The test after steps across a steep valley whose floor falls slowly, and whether it has ever held."""
    rng = np.random.default_rng(4)
    told = Told(np.zeros(2))
    plateau, has_held = Plateau(told), False
    for told.nit in range(steps):
        across = rng.normal()
        told.x[...] = across, told.nit
        told.value, told.gradient = rng.normal(), np.array([100.0 * across, -fall])
        plateau.see()
        has_held = has_held or plateau.reason() is not None
    return plateau, has_held


def test_what_falls_slowly_along_a_noisy_valley_is_seen(monkeypatch):
    assert plateau_of(0.0)[1]
    assert not plateau_of(0.5)[1]
    monkeypatch.setattr(noise, "LEAST_GAIN", np.inf)
    assert plateau_of(0.5)[1]  # nothing else shows it


def test_the_way_ahead_is_that_of_half_of_the_steps():
    plateau, _ = plateau_of(0.5)
    (begin, end, first), (_, last, _) = plateau._earlier[0], plateau._earlier[-1]
    assert begin < last / 2 <= end
    assert len(plateau._earlier) < 8
    np.testing.assert_allclose(plateau._drift, [0.0, 1.0], atol=0.01)
    np.testing.assert_allclose(first[1], (begin + end - 1) / 2)


def test_means_of_points_have_all_digits_of_their_dtype():
    told = Told(np.full(3, 1234.567, np.float32))
    plateau = Plateau(told)
    for k in range(4000):
        told.x[0] = np.float32(1234.567) + np.float32((-1) ** k)
        told.value, told.gradient = 0.0, np.zeros(3, np.float32)
        plateau.see()
    assert plateau.mean.dtype == np.float32
    np.testing.assert_allclose(plateau.mean, np.float32(1234.567), rtol=2e-7)
    np.testing.assert_array_equal(plateau._drift[1:], 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_whose_products_are_too_large_tell_of_no_end(dtype):
    rng = np.random.default_rng(3)
    size = np.sqrt(np.finfo(dtype).max)

    def fun(x):
        return rng.normal(), (size * rng.normal(size=2)).astype(dtype)

    options = {"lr": 10.0, "maxiter": 300, "noisy": True}
    result = fastopt.minimize(fun, np.zeros(2, dtype), method="sgd", jac=True, options=options)
    assert (result.status, result.nit) == (1, 300)
    assert np.isfinite(result.x).all()


def test_a_descent_goes_on():
    result = fastopt.minimize(
        noisy_bowl(0), np.full(10, 1e4), method="adam", jac=True, options={"lr": 0.1, "maxiter": 2000, "noisy": True}
    )
    assert (result.status, result.success) == (1, False)
    assert result.gain > 3 * result.gain_error


def test_the_best_draw_is_luck():
    options = {"lr": 0.02, "maxiter": 600}
    lucky = fastopt.minimize(noisy_bowl(1), np.zeros(10), jac=True, options={**options, "best": True})
    fair = fastopt.minimize(noisy_bowl(1), np.zeros(10), jac=True, options={**options, "noisy": True, "gtol": None})
    truth = lambda x: float((x - 3.0) @ (x - 3.0))  # noqa: E731
    assert lucky.fun < truth(lucky.x) - 1.0
    assert abs(fair.fun - truth(fair.x)) < 0.5
    assert truth(fair.x) < 0.05


def test_before_a_window_ends_the_result_is_the_last_point():
    result = fastopt.minimize(noisy_bowl(1), np.zeros(2), method="sgd", jac=True, options={"maxiter": 3, "noisy": True})
    assert result.nit == 3
    assert np.isnan(result.gain)
    assert result.gain_error == np.inf


def test_noisy_runs_go_on_with_the_same_bits():
    draws = iter([*np.random.default_rng(5).normal(size=(800, 3))] * 2)

    def fun(x):
        noise = next(draws)
        return rosen(x[:2]) + noise[2], 2.0 * (x - 3.0) + noise

    def run(**options):
        solver = fastopt.Solver(options.pop("x", np.zeros(3)), lr=0.05, noisy=True, gtol=None, **options)
        while not solver.done:
            solver.tell(*fun(solver.ask()))
        return solver.result()

    whole = run(maxiter=799)
    used = whole.nit + 1
    draws = iter([*np.random.default_rng(5).normal(size=(800, 3))])
    first = run(maxiter=100)
    draws = iter([*np.random.default_rng(5).normal(size=(800, 3))[100:]])
    state = pickle.loads(pickle.dumps(first.state))
    second = run(x=state["x"], state=state, maxiter=699)
    assert second.nit + 101 == used
    assert_same_bits(second.x, whole.x)
    assert (second.fun, second.gain, second.status) == (whole.fun, whole.gain, whole.status)


def test_slopes_and_means_have_honest_errors():
    rng = np.random.default_rng(0)
    slopes, means = [], []
    for _ in range(500):
        draws = 2.0 - 0.01 * np.arange(83) + rng.normal(size=83)
        slopes.append(_slope(draws))
        means.append(_mean(draws + 0.01 * np.arange(83)))
    for found, truth in ((slopes, -0.01), (means, 2.0)):
        estimates, errors = np.array(found).T
        assert abs(estimates.mean() - truth) < 5 * estimates.std() / np.sqrt(500)
        np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), estimates.std(), rtol=0.15)


def noisy_rosens(seed):
    rng = np.random.default_rng(seed)

    def fun(points):
        values = rosen(points.T) + 0.3 * rng.normal(size=len(points))
        return values, rosen_der(points.T).T + 0.3 * rng.normal(size=points.shape)

    return fun


def told(solver, fun, steps=10**6):
    while not solver.done and solver.nit < steps:
        solver.tell(*fun(solver.ask()))
    return solver


STARTS = np.array([[-1.2, 1.0], [0.5, 0.5], [3.0, -1.0]])


def test_many_starts_stop_when_each_has_come_to_its_end():
    options = {"lr": 0.02, "maxiter": 20_000, "noisy": True, "bounds": [(-4, 4), (-4, 0.8)]}
    fun = noisy_rosens(0)
    whole = told(fastopt.Solver(starts=STARTS, **options), fun).result()
    assert (whole.status, whole.success) == (7, True)
    assert whole.fun == whole.population_energies.min()
    np.testing.assert_allclose(whole.population, [[0.894, 0.8]] * 3, atol=0.1)
    np.testing.assert_array_equal(whole.x, whole.population[whole.population_energies.argmin()])
    assert whole.gain < 3 * whole.gain_error

    fun = noisy_rosens(0)
    state = pickle.loads(pickle.dumps(told(fastopt.Solver(starts=STARTS, **options), fun, 200).state))
    again = told(fastopt.Solver(starts=state["x"], state=state, **options), fun).result()
    assert 200 + again.nit == whole.nit
    assert_same_bits(again.population, whole.population)


def test_a_start_that_is_lost_keeps_no_other_from_stopping():
    fun = noisy_rosens(1)

    def lost(points):
        values, g = fun(points)
        return np.where(points[:, 0] > 2, np.nan, values), g

    result = told(fastopt.Solver(starts=STARTS, lr=0.02, maxiter=20_000, noisy=True), lost).result()
    assert (result.status, result.population_energies[2]) == (7, np.inf)
    assert result.nit < 10_000
    np.testing.assert_array_equal(result.population[2], STARTS[2])
    short = told(fastopt.Solver(starts=STARTS, lr=0.02, maxiter=3, noisy=True), fun).result()
    assert np.isnan(short.gain)
    assert np.all(np.isfinite(short.population_energies))
