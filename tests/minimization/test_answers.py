"""What functions answer: values and gradients in each form, wrong ones, and what is not finite."""

import math

import numpy as np
import pytest

import fastopt
from tests.minimization.functions import both, bowl, slope
from tests.refusal import refused
from tests.table import assert_same_bits


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


def test_what_is_not_finite_is_no_success():
    result = fastopt.minimize(lambda x: (math.nan, np.full(2, np.nan)), np.zeros(2), jac=True, options={"maxiter": 3})
    assert (result.success, result.status) == (False, 5)
    assert "not finite" in result.message


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


@pytest.mark.parametrize("other", [7.0, np.nan])
@pytest.mark.parametrize("options", [{}, {"noisy": True, "gtol": None}, {"g_scale": "auto"}], ids=str)
def test_what_a_mask_leaves_out_has_no_say(options, other):
    def fun(x):
        value, g = both(x)
        g[1] = other
        return value, g

    options = {"lr": 0.1, "maxiter": 3000, "mask": np.array([True, False])} | options
    result = fastopt.minimize(fun, np.zeros(2), method="sgd", jac=True, options=options)
    assert result.status == (7 if "noisy" in options else 0)
    np.testing.assert_allclose(result.x, [3.0, 0.0], atol=1e-4)
    assert result.jac[1] == 0.0


def test_a_mask_of_starts_leaves_out_what_it_does_for_one():
    solver = fastopt.Solver(starts=np.zeros((2, 2)), method="sgd", lr=0.1, mask=np.array([True, False, False, True]))
    solver.ask()
    solver.tell([1.0, 1.0], [[-1.0, np.nan], [np.nan, -1.0]])
    np.testing.assert_array_equal(solver.ask(), [[0.1, 0.0], [0.0, 0.1]])
    solver.tell([np.nan, np.nan], np.zeros((2, 2)))
    assert "the objective is inf" in solver.message


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
