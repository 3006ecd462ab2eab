"""Options of complex numbers as a whole (``complex_mode="modulus"``): discs and rings, thresholds and limits, in the pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from tests.arrays.test_complex import COMPLEX, REFUSING, every_complex, normal, real
from tests.refusal import refused
from tests.step.test_in_pass import FEW, FREE
from tests.table import ELEMENTWISE, RULES, assert_same_bits, form, singles

ROWS = [row for row in RULES if row in ELEMENTWISE and row.optimizer not in (*FREE, *REFUSING, fastopt.FTRL)]


def polar(z):
    """Moduli and directions, in the arithmetic of the parts' dtype."""
    dtype = z.real.dtype.type
    larger = np.maximum(np.abs(z.real), np.abs(z.imag))
    is_zero = larger < np.finfo(dtype).tiny
    factor = dtype(1) / np.where(is_zero, dtype(1), larger)
    x, y = np.where(is_zero, dtype(1), factor * z.real), np.where(is_zero, dtype(0), factor * z.imag)
    length = np.sqrt(x * x + y * y)
    return larger * length, dtype(1) / length * x, dtype(1) / length * y


def complex_of(x, y):
    return np.stack([x, y], axis=-1).view(np.result_type(x.dtype, np.complex64))[..., 0]


def moved(z, least, most):
    """To the next number whose modulus is between these."""
    modulus, x, y = polar(z)
    near = np.minimum(np.maximum(modulus, least), most)
    return np.where(near == modulus, z, complex_of(near * x, near * y))


def held(z, g, least, most):
    """The gradient without its outward part, where z is at a bound."""
    modulus, x, y = polar(z)
    eps, number = 8 * np.finfo(modulus.dtype).eps, modulus.dtype.type
    rounding = number(eps) * modulus
    radial, none = x * g.real + y * g.imag, modulus.dtype.type(0)
    outward = np.where(modulus + rounding < most, none, np.minimum(radial, none))
    outward = outward + np.where(modulus - rounding > least, none, np.maximum(radial, none))
    along = -y * g.real + x * g.imag
    along = np.where(np.abs(along) <= number(eps) * np.abs(radial), none, along)
    inward = np.where(outward == 0, g, complex_of(along * -y, along * x))
    return np.where(modulus == 0, np.where(most > 0, g, np.zeros_like(g)), inward)


def check(row, options, gradient, dtype, size, seed):
    """Step in one pass and in passes of their own, and compare bits; of two zeros of both signs either may come out."""
    rng = np.random.default_rng(seed)
    theta = normal(rng, size, dtype) * (rng.random(size) < 0.9)
    number = theta.real.dtype.type
    plain = theta.copy()
    bounds = options.get("bounds")
    if bounds == "arrays":
        low = rng.uniform(0, 0.5, size).astype(number)
        bounds = low * (rng.random(size) < 0.5), low + rng.uniform(0, 0.5, size).astype(number) * (rng.random(size) < 0.5)
        options = options | {"bounds": bounds}
    opt, bare = (row.make(each, complex_mode="modulus", lr=0.05, **own) for each, own in ((theta, options), (plain, {})))
    least, most = (
        np.asarray(unbounded if side is None else side, number)
        for side, unbounded in zip(bounds or (None, None), (-np.inf, np.inf), strict=True)
    )
    for _ in range(3):
        given = normal(rng, size, gradient)
        opt.step(given)
        g = given.astype(dtype)
        if clip := options.get("clip_value"):
            g = moved(g, -number(clip), number(clip))
        if options.get("maximize"):
            g = -g
        if options.get("project_gradient") and bounds is not None:
            g = held(plain, g, least, most)
        bare.step(g)
        if l1 := options.get("l1"):
            plain -= moved(plain, -number(0.05) * number(l1), number(0.05) * number(l1))
        plain[...] = moved(plain, least, most)
        assert_same_bits(real(theta) + number(0), real(plain) + number(0))
    for name in row.states:
        assert_same_bits(real(opt.state[name]) + number(0), real(bare.state[name]) + number(0), name)


SOME = [
    {"bounds": (None, 1.0), "project_gradient": True},
    {"bounds": "arrays", "project_gradient": True, "clip_value": 1.5},
    {"bounds": (0.25, 1.0), "l1": 2.0, "maximize": True},
    {"clip_value": 0.5, "l1": 0.5},
]


@pytest.mark.wide
@every_complex
@pytest.mark.parametrize("gradient", COMPLEX)
@pytest.mark.parametrize("options", SOME, ids=str)
@pytest.mark.parametrize("row", [row for row in FEW if row in ROWS], ids=str)
def test_one_pass_has_the_bits_of_many(row, options, gradient, dtype):
    for size in (*range(10), 37, 70, 1003):
        check(row, options, gradient, dtype, size, seed=size)


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_complex
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_rule_takes_all_of_them(row, dtype):
    options = {"bounds": "arrays", "clip_value": 0.5, "l1": 0.1, "maximize": True, "project_gradient": True}
    check(row, options, dtype, dtype, size=1003, seed=0)


@given(st.integers(0, 2**32 - 1), st.sampled_from(COMPLEX), singles(0.0, 2.0), singles(0.0, 2.0), singles(0.0, 2.0))
def test_they_are_those_of_complex_arithmetic(seed, dtype, least, room, l1):
    z = normal(np.random.default_rng(seed), 50, dtype)
    modulus, phase = np.abs(z), z / np.abs(z)
    shrunk, bounded = z.copy(), z.copy()
    options = {"lr": 1.0, "complex_mode": "modulus"}
    fastopt.SGD(shrunk, **options, l1=l1).step(np.zeros_like(z))
    fastopt.SGD(bounded, **options, bounds=(np.full(50, least), np.full(50, least + room))).step(np.zeros_like(z))
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(shrunk, np.maximum(modulus - l1, 0) * phase, rtol=0, atol=3 * tolerance)
    np.testing.assert_allclose(bounded, np.clip(modulus, least, least + room) * phase, rtol=tolerance, atol=tolerance)


@every_complex
def test_moduli_neither_overflow_nor_vanish(dtype):
    largest = np.finfo(dtype).max / 2
    g = np.array([largest * (1 + 1j), -largest, 0, np.nan, 3 * np.finfo(dtype).tiny * (3 + 4j)], dtype)
    z = np.zeros(5, dtype)
    fastopt.SGD(z, lr=1.0, clip_value=0.5, complex_mode="modulus").step(g)
    np.testing.assert_allclose(z[:3], [-np.sqrt(0.125) * (1 + 1j), 0.5, 0], rtol=1e-6)
    assert np.isnan(z[3])
    z = -g.copy()
    fastopt.SGD(z, lr=0.0, bounds=(1.0, 2.0), complex_mode="modulus").step(np.zeros_like(g))
    np.testing.assert_allclose(z[[0, 1, 4]], [-np.sqrt(2) * (1 + 1j), 2, -0.6 - 0.8j], rtol=1e-5)
    assert z[2] == 1  # which has no direction of its own


def test_a_ring_has_its_corners_where_numbers_are_real():
    z = np.zeros(3, np.complex128)
    fastopt.SGD(z, lr=1.0, bounds=(1.0, 1.0), complex_mode="modulus").step(np.array([1j, -1, 0]))
    np.testing.assert_array_equal(z, [-1j, 1, 1])
    w = np.zeros(2)  # of real parameters nothing is a modulus
    fastopt.SGD(w, lr=1.0, bounds=(-1.0, 2.0), complex_mode="modulus").step(np.array([5.0, -5.0]))
    np.testing.assert_array_equal(w, [-1.0, 2.0])


def test_a_projected_gradient_leaves_a_disc_at_once_and_moves_along_it():
    steps = {}
    for project in (False, True):
        z = np.full(1, 0.6 + 0.8j)
        opt = fastopt.Adam(z, lr=0.01, bounds=(None, 1.0), project_gradient=project, complex_mode="modulus")
        for _ in range(200):
            opt.step(-100.0 * z)
        np.testing.assert_allclose(z, 0.6 + 0.8j, rtol=1e-12)
        steps[project] = 0
        while abs(z[0]) > 0.9 and steps[project] < 1000:
            opt.step(np.full(1, 0.6 + 0.8j))
            steps[project] += 1
    assert steps[False] > 500
    assert steps[True] <= 15

    z = np.array([1.0 + 0j, 1.0, 0, 0])
    opt = fastopt.SGD(
        z, lr=1e-3, momentum=0.5, bounds=(0.0, [1.0, 1.0, 1.0, 0.0] * np.ones(4)), project_gradient=True, **MODULI
    )
    opt.step(np.array([-1 + 2j, 1 + 2j, 1 + 2j, 1 + 2j]))
    np.testing.assert_allclose(opt.state["p"], [2j, 1 + 2j, 1 + 2j, 0])


MODULI = {"complex_mode": "modulus"}


def test_bounds_that_no_modulus_keeps_are_refused():
    z = np.zeros(3, complex)
    with refused(ValueError, "bounds must have no upper bound below 0 for moduli, which those of params have"):
        fastopt.SGD(z, bounds=(None, -1.0), **MODULI)
    opt = fastopt.SGD(z, bounds=(None, 1.0), **MODULI)
    with refused(ValueError, "bounds must have no upper bound below 0 for moduli", opt=opt):
        opt.param_groups[0]["bounds"] = (None, np.array([1.0, -1.0, 0.0]))
    with refused(TypeError, "bounds must be real here, got complex128", opt=opt):
        opt.param_groups[0]["bounds"] = (0j, None)


def test_ftrl_thresholds_moduli():
    z = np.zeros(2, complex)
    opt = fastopt.FTRL(z, lr=0.1, l1=1.0, **MODULI)
    opt.step(np.array([0.5 + 0.5j, 3 + 4j]))
    assert z[0] == 0
    np.testing.assert_allclose(z[1] / abs(z[1]), -(0.6 + 0.8j))
