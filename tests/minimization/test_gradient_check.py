"""Gradients that are right, wrong, or lost in noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from scipy.optimize import rosen, rosen_der

import fastopt
from tests.refusal import refused

TARGET = np.array([1 + 2j, -3j, 0.5])


def waves(x):
    return float(np.sum(np.sin(x) + 0.1 * x**4)), np.cos(x) + 0.4 * x**3


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 50), st.sampled_from([1e-6, 1.0, 1e6]), st.sampled_from([1.0, 1.02, 0.5, -1.0])
)
def test_it_tells_right_from_wrong(seed, size, unit, factor):
    x = np.random.default_rng(seed).normal(size=size)
    fun = lambda x: (unit * waves(x)[0], factor * unit * waves(x)[1])  # noqa: E731
    check = fastopt.check_gradient(fun, x, seed=seed)
    assert check.verdict == ("right" if factor == 1.0 else "wrong")
    assert bool(check) == (factor == 1.0)
    assert np.all(np.abs(check.rates - (2.0 if factor == 1.0 else 1.0)) < 0.3) or factor == 1.0


def test_one_wrong_element_of_many_is_found():
    def fun(x):
        value, g = waves(x)
        g[7] *= 1.5
        return value, g

    x = np.random.default_rng(0).normal(size=100)
    assert fastopt.check_gradient(waves, x)
    assert fastopt.check_gradient(fun, x).verdict == "wrong"


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e4])
def test_small_and_large_variables_in_single_precision(size):
    x = (size * np.array([-1.2, 1.0, 0.3])).astype(np.float32)

    def fun(x, factor):
        value, g = waves(x.astype(np.float64) / size)
        return value, factor * g / size

    assert fastopt.check_gradient(fun, x, (1.0,)).verdict == "right"
    assert fastopt.check_gradient(fun, x, (1.05,)).verdict == "wrong"


def test_it_is_shown_in_one_line():
    assert len(repr(fastopt.check_gradient(waves, [1.0, 2.0]))) < 120


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_precisions(dtype):
    x = np.array([-1.2, 1.0, 0.3], dtype)
    seen = []
    fun = lambda x: seen.append(x.dtype) or dtype(rosen(x))  # noqa: E731
    assert fastopt.check_gradient(fun, x, jac=lambda x: rosen_der(x).astype(dtype))
    assert set(seen) == {np.dtype(dtype)}
    assert not fastopt.check_gradient(fun, x, jac=lambda x: 1.1 * rosen_der(x).astype(dtype))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(
    ("gradient", "verdict"), [(lambda e: 4 * np.abs(e) ** 2 * e, "right"), (lambda e: 4 * np.abs(e) ** 2 * e.conj(), "wrong")]
)
def test_complex_gradients_and_their_conjugates(dtype, gradient, verdict):
    fun = lambda z: np.sum(np.abs(z - TARGET) ** 4)  # noqa: E731
    assert (
        fastopt.check_gradient(fun, np.array([0.5j, 1.0, -1 + 1j], dtype), jac=lambda z: gradient(z - TARGET)).verdict
        == verdict
    )


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "right"), (1.1, "wrong")])
def test_linear_functions_leave_no_remainder(factor, verdict):
    slopes = np.array([3.0, -2.0, 0.5])
    check = fastopt.check_gradient(lambda x: (float(slopes @ x), factor * slopes), [1.0, 2.0, 3.0])
    assert check.verdict == verdict
    assert factor != 1.0 or np.all(np.isinf(check.rates))


def test_noise_is_told_from_both():
    rng = np.random.default_rng(0)
    fun = lambda x: (waves(x)[0] + 10.0 * rng.normal(), waves(x)[1])  # noqa: E731
    assert fastopt.check_gradient(fun, [0.5, 1.0]).verdict != "right"
    flat = lambda x: (1e9 + 1e-6 * float(np.sin(x).sum()), 1e-6 * np.cos(x))  # noqa: E731
    check = fastopt.check_gradient(flat, [0.5, 1.0])
    assert check.verdict == "lost in noise"
    assert np.all(np.isnan(check.rates))


def test_the_picture_shows_remainders():
    check = fastopt.check_gradient(waves, [0.5, 1.0])
    ax = check.plot()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), check.remainders[0])
    assert "right" in ax.get_title()
    assert check.plot(ax) is ax
    pyplot.close(ax.figure)


def test_what_is_checked():
    with refused(TypeError, "jac must be callable or True: there must be a gradient to check, got None"):
        fastopt.check_gradient(rosen, [0.0, 1.0], jac=None)
    with refused(ValueError, "must be finite at x, got nan"):
        fastopt.check_gradient(lambda x: (np.nan, x), [0.0, 1.0])
    with refused(ValueError, "directions must be at least 1"):
        fastopt.check_gradient(waves, [0.0, 1.0], directions=0)
