"""What SciPy asks of its own methods, where it fits those that go by gradients: through its `minimize` and through ours."""

import inspect
import itertools

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, rosen, rosen_der

import fastopt
from fastopt.minimization.bounds import Box
from fastopt.minimization.differences import differences
from tests.refusal import refused
from tests.table import assert_same_bits

CENTER = np.array([1.0, -2.0, 0.5])


def fun(x, center=CENTER, stretch=1.0):
    return stretch * float(np.sum((x - center) ** 2))


def jac(x, center=CENTER, stretch=1.0):
    return 2.0 * stretch * (x - center)


def ours(*args, options=None, **kwargs):
    return fastopt.minimize(*args, options={"lr": 0.1, **(options or {})}, **kwargs)


def theirs(*args, options=None, **kwargs):
    return scipy.optimize.minimize(*args, method=fastopt.scipy_method("adam", lr=0.1), options=options or {}, **kwargs)


both_ways = pytest.mark.parametrize("minimize", [ours, theirs])


@both_ways
def test_the_result_has_what_a_result_has(minimize):
    result = minimize(fun, np.zeros(3), jac=jac)
    assert isinstance(result, OptimizeResult)
    reference = scipy.optimize.minimize(fun, np.zeros(3), jac=jac, method="L-BFGS-B")
    for key in ("x", "fun", "jac", "nit", "nfev", "njev", "success", "status", "message"):
        assert type(result[key]) is type(reference[key]) or key == "message"
        assert np.shape(result[key]) == np.shape(reference[key])
    assert "success: True" in repr(result)
    assert (result.status, result.success) == (0, True)
    np.testing.assert_allclose(result.x, CENTER, atol=1e-5)


@both_ways
@pytest.mark.parametrize("args", [(), (np.ones(3),), (np.ones(3), 2.0)])
def test_arguments_go_to_both_functions(minimize, args):
    result = minimize(fun, np.zeros(3), args=args, jac=jac)
    np.testing.assert_allclose(result.x, args[0] if args else CENTER, atol=1e-5)
    single = minimize(lambda x, c: fun(x, c), np.zeros(3), args=np.ones(3), jac=lambda x, c: jac(x, c))
    np.testing.assert_allclose(single.x, 1.0, atol=1e-5)


@both_ways
@pytest.mark.parametrize("derivative", [jac, True, False, None, "2-point", "3-point", "cs"])
def test_each_form_of_jac(minimize, derivative):
    answer = (lambda x: (fun(x), jac(x))) if derivative is True else lambda x: np.sum((x - CENTER) ** 2)
    if minimize is theirs and isinstance(derivative, str):
        derivative = None  # SciPy keeps words for its own methods
    result = minimize(answer, np.zeros(3), jac=derivative, options={"gtol": 1e-4})
    assert result.success
    np.testing.assert_allclose(result.x, CENTER, atol=1e-4)


@both_ways
@pytest.mark.parametrize(
    "form", [lambda g: g[None], lambda g: g[:, None], list, tuple, np.float32, lambda g: np.repeat(g, 2)[::2]]
)
def test_gradients_of_any_shape(minimize, form):
    result = minimize(fun, np.zeros(3), jac=lambda x: form(jac(x)))
    np.testing.assert_allclose(result.x, CENTER, atol=1e-5)
    assert result.jac.shape == (3,)


@both_ways
@pytest.mark.parametrize(
    "form", [lambda v: np.array([v]), lambda v: np.array([[v]]), np.float64, np.float32, lambda v: [v], np.array]
)
def test_values_of_one_element(minimize, form):
    assert minimize(lambda x: form(fun(x)), np.zeros(3), jac=jac, options={"ftol": 0.0}).success


BOUNDS = [
    [(0, 0.5), (-1, 1), (None, None)],
    ((0, 0.5), (-1, 1), (None, None)),
    [[0, 0.5], [-1, 1], [-np.inf, np.inf]],
    np.array([[0, 0.5], [-1, 1], [-np.inf, np.inf]]),
    Bounds([0, -1, -np.inf], [0.5, 1, np.inf]),
    Bounds([0, -1, -np.inf], [0.5, 1, np.inf], keep_feasible=True),
]


@both_ways
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("derivative", [jac, None])
def test_each_form_of_bounds(minimize, bounds, derivative):
    low, high = np.array([0, -1, -np.inf]), np.array([0.5, 1, np.inf])

    def inside(x):
        assert np.all((low <= x) & (x <= high))
        return fun(x)

    x0 = np.array([-5.0, 5.0, 5.0])
    result = minimize(inside, x0, jac=derivative, bounds=bounds, options={"gtol": 1e-4})
    assert result.success
    np.testing.assert_allclose(result.x, [0.5, -1.0, 0.5], atol=1e-4)
    np.testing.assert_array_equal(x0, [-5.0, 5.0, 5.0])


@both_ways
def test_scalar_and_equal_bounds(minimize):
    np.testing.assert_allclose(minimize(fun, np.zeros(3), jac=jac, bounds=Bounds(-1.0, 0.75)).x, [0.75, -1.0, 0.5], atol=1e-5)
    result = minimize(fun, np.zeros(3), jac=jac, bounds=[(0.25, 0.25), (None, None), (0.0, None)])
    assert result.x[0] == 0.25
    assert result.success


@both_ways
def test_maxiter_is_respected_and_no_success(minimize):
    result = minimize(rosen, [-1.2, 1.0, 2.0], jac=rosen_der, options={"maxiter": 4})
    assert (result.nit, result.status, result.success) == (4, 1, False)
    assert result.message


@both_ways
def test_a_user_may_overwrite_the_point(minimize):
    def destroys(x):
        value, g = fun(x), jac(x)
        x[...] = 7.0
        return value, g

    assert_same_bits(minimize(destroys, np.zeros(3), jac=True).x, minimize(lambda x: (fun(x), jac(x)), np.zeros(3), jac=True).x)


@both_ways
def test_no_point_is_evaluated_twice(minimize):
    seen = []

    def once(x):
        seen.append(tuple(x))
        return fun(x), jac(x)

    result = minimize(once, np.zeros(3), jac=True)
    assert len(set(seen)) == len(seen) == result.njev == result.nit + 1


@both_ways
def test_stopping_by_the_callback_is_like_limiting_the_steps(minimize):
    limited = minimize(rosen, [1.5] * 5, jac=rosen_der, options={"maxiter": 5})
    for names in ("xk", "intermediate_result"):
        count = itertools.count(1)

        def stop(*args, count=count, **kwargs):
            if next(count) == 5:
                raise StopIteration

        callback = (lambda xk: stop(xk)) if names == "xk" else lambda *, intermediate_result: stop(intermediate_result)
        stopped = minimize(rosen, [1.5] * 5, jac=rosen_der, callback=callback)
        assert_same_bits(stopped.x, limited.x)
        assert (stopped.status, stopped.success, stopped.nit) == (99, False, 5)


@both_ways
def test_callbacks_get_arrays_that_stay_as_they_are(minimize):
    points, copies = [], []

    def callback(xk):
        points.append(xk)
        copies.append(xk.copy())

    minimize(rosen, [1.5] * 5, jac=rosen_der, callback=callback, options={"maxiter": 8})
    np.testing.assert_array_equal(points, copies)
    results = []
    minimize(fun, np.zeros(3), jac=jac, callback=lambda intermediate_result: results.append(intermediate_result))
    for each in results:
        assert isinstance(each, OptimizeResult)
        assert each.fun == fun(each.x)


@both_ways
def test_nan_ends_it_without_success(minimize):
    calls = itertools.count()
    result = minimize(lambda x: np.nan if next(calls) == 3 else fun(x), np.zeros(3), jac=jac, options={"ftol": 0.0})
    assert not result.success
    assert result.nit == 2
    assert np.isfinite(result.fun)


@both_ways
@pytest.mark.parametrize("x0", [3.0, [3.0], np.array([3]), np.float32(3.0)])
def test_one_variable(minimize, x0):
    result = minimize(lambda x: (x - 1.0) ** 2, x0, tol=1e-4)
    assert result.x.shape == (1,)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-3)


def test_what_first_order_methods_can_not_take():
    constraint = LinearConstraint(np.ones((1, 3)), 0.0, 1.0)
    with refused(ValueError, "constraints must be empty"):
        theirs(fun, np.zeros(3), jac=jac, constraints=constraint)
    assert theirs(fun, np.zeros(3), jac=jac, hess=lambda x: np.eye(3)).success


def test_options_of_the_call_come_before_those_of_the_method():
    method = fastopt.scipy_method("adam", lr=0.1, maxiter=3, gtol=None)
    assert scipy.optimize.minimize(fun, np.zeros(3), jac=jac, method=method).nit == 3
    assert scipy.optimize.minimize(fun, np.zeros(3), jac=jac, method=method, options={"maxiter": 5}).nit == 5
    assert scipy.optimize.minimize(fun, np.zeros(3), jac=jac, method=method, tol=10.0).nit == 0
    assert "fun" in inspect.signature(fastopt.minimize).parameters


@pytest.mark.parametrize("scheme", ["2-point", "3-point", "cs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_are_as_good_as_their_scheme(scheme, dtype):
    x = np.array([0.3, -1.0, 2.0, 1.5], dtype)
    sides = np.array([0.3, -2.0, 2.0, -np.inf], dtype), np.array([1.0, -1.0, 2.0, np.inf], dtype)

    def wave(point):
        assert scheme == "cs" or np.all((sides[0] <= point) & (point <= sides[1]))
        return np.sum(np.sin(point[:3].astype(np.result_type(point, np.float64)))) + 2.0 * point[3]

    found = differences(wave, x, float(wave(x)), Box(*sides, x.dtype), scheme)
    expected = np.array([np.cos(0.3), np.cos(1.0), 0.0 if scheme != "cs" else np.cos(2.0), 2.0])
    eps = np.finfo(dtype).eps
    tolerance = {"2-point": 16 * eps**0.5, "3-point": 32 * eps ** (2 / 3), "cs": 4 * eps}[scheme]
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert found.dtype == dtype


def test_complex_steps_take_python_s_complex_numbers():
    x = np.array([1.0, -2.0])
    np.testing.assert_allclose(differences(lambda x: sum(each**3 for each in x.tolist()), x, -7.0, None, "cs"), [3.0, 12.0])


def test_complex_steps_need_real_variables():
    with refused(ValueError, 'jac="cs" must have real variables'):
        fastopt.minimize(lambda z: abs(z[0]), [1j], jac="cs")


TARGET = np.array([1 + 2j, -3j, 0.5])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("derivative", [lambda z: 2 * (z - TARGET), None, "3-point"])
@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_complex_variables(dtype, derivative, mode):
    options = {"lr": 0.1, "gtol": 1e-3, "complex_mode": mode}
    value = lambda z: np.sum(np.abs(z.astype(complex) - TARGET) ** 2)  # noqa: E731
    result = fastopt.minimize(value, np.zeros(3, dtype), jac=derivative, options=options)
    assert result.success or dtype == np.complex64
    assert result.x.dtype == dtype
    np.testing.assert_allclose(result.x, TARGET, atol=2e-2 if dtype == np.complex64 else 1e-3)


@pytest.mark.parametrize("globally", ["basinhopping", "dual_annealing", "shgo"])
def test_global_methods_of_scipy_take_it_for_their_local_steps(globally):
    local = {"method": fastopt.scipy_method("adam", lr=0.1), "jac": jac}
    sides = [(-3, 3)] * 3
    result = {
        "basinhopping": lambda: scipy.optimize.basinhopping(fun, np.zeros(3), niter=2, minimizer_kwargs=local),
        "dual_annealing": lambda: scipy.optimize.dual_annealing(fun, sides, maxiter=20, minimizer_kwargs=local),
        "shgo": lambda: scipy.optimize.shgo(fun, sides, n=16, minimizer_kwargs=local),
    }[globally]()
    np.testing.assert_allclose(result.x, CENTER, atol=1e-3)
