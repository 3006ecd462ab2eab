"""Bounds: in each form, for steps, differences and tolerances; boxes, discs and rings."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize

import fastopt
from fastopt.minimization.bounds import Box
from fastopt.minimization.differences import differences
from tests.minimization.functions import both, bowl, slope
from tests.refusal import refused


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


def test_bounds_hold_for_differences_and_tolerances_too():
    def edge(x):
        return float(-x[0] + 0.0 * np.sqrt(1.0 - x[0]))

    result = fastopt.minimize(edge, [0.5], bounds=[(0, 1)], tol=1e-6, options={"lr": 0.1, "maxiter": 50})
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-6)
    result = fastopt.minimize(bowl, [0.0, 0.0], jac=slope, bounds=[(0, 2)] * 2, tol=1e-6, options={"lr": 0.1})
    assert result.success
    np.testing.assert_array_equal(result.x, 2.0)


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

    found = differences(line, x, 0.0, Box(*sides, x.dtype))
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


BAD = [
    ({"bounds": 3}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [("a", "b")] * 2}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [(0, 1)] * 3}, ValueError, "bounds must be a pair for each of 2 variables, or one for all, got 3 items"),
    ({"bounds": (0, 1, 2)}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": ("a", "b")}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [(1, 0), (0, 1)]}, ValueError, "no lower bound above the upper one"),
    ({"bounds": [(0, np.nan)] * 2}, ValueError, "bounds must have no NaN, got (0.0, nan) for variable 0"),
    ({"bounds": [(0, 1, 2)] * 2}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [(0, 1), (0,)]}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": np.zeros((2, 2), complex)}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": np.ma.masked_equal([[0, 1], [2, 3]], 2)}, TypeError, "bounds must be pairs of numbers or None"),
    ({"bounds": [("1", None)] * 2}, TypeError, "bounds must be a real number, got '1'"),
    ({"bounds": scipy.optimize.Bounds([0, 0, 0], 1)}, ValueError, "bounds.lb must have an item for each of 2 variables, got 3"),
]


@pytest.mark.parametrize(("changes", "error", "words"), BAD, ids=str)
def test_bad_bounds_are_refused(changes, error, words):
    with refused(error, words):
        fastopt.minimize(bowl, [0.0, 1.0], jac=slope, **changes)


def test_two_arrays_of_bounds_are_told_from_pairs():
    with refused(TypeError, "bounds must be pairs of numbers or None", "for two arrays take scipy.optimize.Bounds"):
        fastopt.minimize(bowl, np.zeros(3), jac=slope, bounds=(np.zeros(3), np.ones(3)))


TARGET = np.array([1 + 2j, -3j, 0.5])


def test_bounds_of_complex_variables_hold_for_both_parts():
    value = to_target
    result = fastopt.minimize(value, np.zeros(3, complex), jac=True, bounds=[(-1, 1)] * 3, options={"lr": 0.1})
    np.testing.assert_allclose(result.x, [1 + 1j, -1j, 0.5], atol=1e-4)
    assert result.success
    corners = np.array([[-1 - 2j, 1 + 1.5j], [-1 - 2j, 1 + 1j], [-1, 0.25 + 1j]])
    result = fastopt.minimize(value, np.zeros(3, complex), jac=True, bounds=corners, options={"lr": 0.1})
    np.testing.assert_allclose(result.x, [1 + 1.5j, -2j, 0.25], atol=1e-4)


def to_target(z):
    return float(np.sum(np.abs(z - TARGET) ** 2)), 2 * (z - TARGET)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("scale", [{}, {"x_scale": 2.0}, {"x_scale": "auto", "g_scale": "auto"}], ids=str)
def test_bounds_of_moduli(dtype, scale):
    seen = []

    def fun(z):
        seen.append(np.abs(z))
        return to_target(z)

    options = {"lr": 0.05, "maxiter": 2000, "complex_mode": "modulus", "gtol": 1e-3, **scale}
    radii = np.array([1.0, np.inf, 0.0])  # the last one is outside of the support
    x0 = np.array([5.0, 1.0, 1.0], dtype)
    result = fastopt.minimize(fun, x0, jac=True, bounds=scipy.optimize.Bounds(0, radii), options=options)
    assert result.success
    np.testing.assert_allclose(result.x, [(1 + 2j) / np.sqrt(5), -3j, 0], atol=2e-3)
    assert np.all(np.array(seen) <= radii * (1 + 4 * np.finfo(dtype).eps))


@pytest.mark.parametrize("noisy", [False, True])
def test_a_ring_shifts_phases_alone(noisy):
    rng = np.random.default_rng(0)
    spread = 0.1 * noisy

    def fun(z):
        value, g = to_target(z)
        return value + spread * rng.normal(), g + spread * (rng.normal(size=3) + 1j * rng.normal(size=3))

    options = {"lr": 0.01, "maxiter": 4000, "complex_mode": "modulus", "noisy": noisy}
    result = fastopt.minimize(fun, np.zeros(3, complex), jac=True, bounds=(1, 1), options=options)
    assert result.success
    np.testing.assert_allclose(result.x, TARGET / np.abs(TARGET), atol=0.05 if noisy else 1e-4)
    np.testing.assert_allclose(np.abs(result.x), 1.0, rtol=1e-15)


def test_bounds_of_moduli_are_checked():
    of_moduli = {"options": {"complex_mode": "modulus"}}
    with refused(ValueError, "no upper bound below 0 with complex_mode='modulus'", "got -1.0 for variable 0"):
        fastopt.minimize(to_target, np.zeros(3, complex), jac=True, bounds=(None, -1), **of_moduli)
    with refused(TypeError, "bounds must be real with complex_mode='modulus'"):
        fastopt.minimize(to_target, np.zeros(3, complex), jac=True, bounds=(0, 1j), **of_moduli)
    with refused(ValueError, "jac must give the gradient where bounds are those of the modulus"):
        fastopt.minimize(lambda z: abs(z[0]), np.zeros(1, complex), bounds=(0, 1), **of_moduli)
    result = fastopt.minimize(bowl, [0.0, 1.0], jac=slope, bounds=(-4, 2), options={"complex_mode": "modulus", "lr": 0.1})
    np.testing.assert_array_equal(result.x, 2.0)  # real variables have no other


FOR_ALL = [(0, 2), [0, None], (None, 2.0), np.array([0.0, 2.0]), [(0, 2)], ((None, 2),), np.array([[0, 2]])]


@pytest.mark.parametrize("bounds", FOR_ALL, ids=str)
def test_one_pair_is_for_all_variables(bounds):
    center = np.array([3.0, -3.0, 1.0])
    result = fastopt.minimize(bowl, np.ones(3), (center,), jac=slope, bounds=bounds, options={"lr": 0.1})
    low, high = np.array(bounds, object).ravel()
    clipped = np.clip(center, -np.inf if low is None else low, np.inf if high is None else high)
    np.testing.assert_allclose(result.x, clipped, atol=1e-4)


def test_pairs_with_other_numbers_and_none():
    pairs = [(Fraction(1, 2), None), (None, np.float32(0.5)), (0, 2)]
    result = fastopt.minimize(bowl, np.zeros(3), jac=slope, bounds=pairs, options={"lr": 0.1})
    np.testing.assert_allclose(result.x, [3.0, 0.5, 2.0], atol=1e-4)
