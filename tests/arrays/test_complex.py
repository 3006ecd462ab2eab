"""Complex parameters: each part on its own as PyTorch has it, or second moments of the modulus as optax has them."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.engine.pairs import Pair
from tests.peers import STEPS
from tests.refusal import refused
from tests.row import next_numbers
from tests.table import RULES, TABLE, assert_same_bits, form, singles

COMPLEX = (np.complex64, np.complex128)
REFUSING = (fastopt.NoisySGD, fastopt.Rprop, fastopt.Sophia)

every_complex = pytest.mark.parametrize("dtype", COMPLEX)


def normal(rng, shape, dtype=np.complex128):
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def real(array):
    """The same numbers, real and imaginary parts in turn."""
    return array.ravel().view(array.real.dtype)


@pytest.mark.wide
@every_complex
@pytest.mark.parametrize("row", [row for row in RULES if row.optimizer is not fastopt.NoisySGD], ids=str)
def test_parts_are_stepped_as_real_numbers(row, dtype):
    rng = np.random.default_rng(0)
    theta = normal(rng, 501, dtype)
    plain = real(theta).copy()
    opt, bare = row.make(theta), row.make(plain)
    for _ in range(3):
        g = normal(rng, 501, dtype)
        opt.step(g)
        bare.step(real(g))
        assert_same_bits(real(theta), plain)
    for name in row.states:
        assert opt.state[name].dtype == dtype
        assert_same_bits(real(opt.state[name]), bare.state[name], name)


@pytest.mark.peers
@pytest.mark.parametrize("row", [row for row in TABLE if row.torch], ids=str)
def test_parts_are_those_of_pytorch(row, torch):
    rng = np.random.default_rng(0)
    theta = normal(rng, (4, 5))
    p = torch.nn.Parameter(torch.from_numpy(theta.copy()))
    name, arguments = row.torch
    theirs, opt = getattr(torch.optim, name)([p], **arguments), row.make(theta)
    for _ in range(STEPS):
        g = normal(rng, (4, 5))
        p.grad = torch.from_numpy(g.copy())
        theirs.step()
        opt.step(g)
        np.testing.assert_allclose(theta, p.detach().numpy(), rtol=1e-12, atol=1e-12)


def takes_modulus_in_optax(row):
    # Where these take the sign of each part, optax divides by the modulus.
    signs = (fastopt.Lion, fastopt.Signum)
    # There optax compares or clips complex numbers, which have no order, or averages their squares, which are complex.
    confusing = (fastopt.ADOPT, fastopt.Prodigy, fastopt.AdaDelta)
    return row.optax is not None and row.optimizer not in (*signs, *confusing, *REFUSING)


@pytest.mark.wide(by=lambda row: (form(row),))
@pytest.mark.peers
@pytest.mark.parametrize("row", [row for row in TABLE if takes_modulus_in_optax(row)], ids=str)
def test_moduli_are_those_of_optax(row, optax):
    from operator import attrgetter

    import jax

    rng = np.random.default_rng(0)
    theta = normal(rng, (4, 5))
    name, arguments = row.optax
    transformation = attrgetter(name)(optax)(**arguments)
    params = jax.numpy.array(theta)
    state = transformation.init(params)
    opt = row.make(theta, complex_mode="modulus")
    for _ in range(STEPS):
        g = normal(rng, (4, 5))
        updates, state = transformation.update(jax.numpy.array(g), state, params)
        params = optax.apply_updates(params, updates)
        opt.step(g)
        np.testing.assert_allclose(theta, np.asarray(params), rtol=1e-12, atol=1e-12)


def pair(array):
    return Pair(array.real.copy(), array.imag.copy()) if array.dtype.kind == "c" else array


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_complex
@pytest.mark.parametrize("row", [row for row in RULES if row.optimizer not in REFUSING], ids=str)
def test_moduli_have_the_bits_of_the_rule_on_pairs(row, dtype):
    rng = np.random.default_rng(1)
    theta = normal(rng, 501, dtype)
    number = theta.real.dtype.type
    opt = row.make(theta, complex_mode="modulus")
    (group,) = opt.param_groups
    (p,) = group.parameters
    for _ in range(3):
        g = normal(rng, 501, dtype)
        vector = p.gradient("g", g)
        numbers = next_numbers(opt, vector)
        states = [pair(opt.state[name].copy()) for name in row.states]
        with np.errstate(all="ignore"):
            cast = [c if isinstance(c, np.ndarray) else number(c) for c in numbers]
            new = group.rule(pair(theta), pair(g), cast[0], *states, *cast[1:])
        opt.step(g)
        for name, expected in zip(("theta", *row.states), new if isinstance(new, tuple) else (new,), strict=True):
            actual = theta if name == "theta" else opt.state[name]
            if isinstance(expected, Pair):
                assert_same_bits(np.ascontiguousarray(actual.real), expected.x, name)
                assert_same_bits(np.ascontiguousarray(actual.imag), expected.y, name)
            else:
                assert_same_bits(actual, expected, name)


def test_second_moments_of_moduli_are_real():
    z = np.zeros((2, 3), np.complex64)
    opt = fastopt.Adam(z, lr=0.1, complex_mode="modulus")
    opt.step(np.full((2, 3), 3 - 4j, np.complex64))
    assert (opt.state["m"].dtype, opt.state["v"].dtype, opt.state["v"].shape) == (np.complex64, np.float32, (2, 3))
    np.testing.assert_allclose(z, -0.1 * (0.6 - 0.8j), rtol=1e-6)  # a step of length lr, in the gradient's direction
    np.testing.assert_allclose(opt.state["v"], 1e-3 * 25.0, rtol=1e-6)


@given(
    st.sampled_from([(), (1,), (3, 4), (0,), (37,)]),
    st.sampled_from(COMPLEX),
    st.sampled_from(COMPLEX),
    st.sampled_from(["parts", "modulus"]),
    st.sampled_from("CF"),
    st.fixed_dictionaries(
        {},
        optional={
            "clip_norm": st.floats(0.1, 10.0),
            "ema_decay": singles(0.0, 1.0),
            "zero_grad": st.booleans(),
            "maximize": st.booleans(),
            "weight_decay": singles(0.0, 0.1),
            "flush_subnormals": st.booleans(),
        },
    ),
    st.integers(0, 2**32 - 1),
)
def test_adam_against_complex_arithmetic(shape, dtype, gradient, mode, order, options, seed):
    rng = np.random.default_rng(seed)
    z = np.asarray(normal(rng, shape, dtype), order=order)
    theta, ema = z.astype(np.complex128), z.astype(np.complex128)
    opt = fastopt.Adam(z, lr=0.1, complex_mode=mode, **options)
    m, v = np.zeros_like(theta), np.zeros(shape) if mode == "modulus" else np.zeros_like(theta)
    decay = options.get("ema_decay", 0.5)

    def of_parts(function, x):
        return function(x.real) + 1j * function(x.imag)

    for t in range(1, 4):
        given = normal(rng, shape, gradient)
        g = given.astype(np.complex128)
        opt.step(given)
        if (norm := np.linalg.norm(g)) > options.get("clip_norm", np.inf):
            g = g * options["clip_norm"] / norm
        g = (-g if options.get("maximize") else g) + options.get("weight_decay", 0.0) * theta
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * (np.abs(g) ** 2 if mode == "modulus" else of_parts(np.square, g))
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        if mode == "modulus":
            update = m_hat / (np.sqrt(v_hat) + 1e-8)
        else:
            update = m_hat.real / (np.sqrt(v_hat.real) + 1e-8) + 1j * (m_hat.imag / (np.sqrt(v_hat.imag) + 1e-8))
        theta = theta - 0.1 * update
        ema = decay * ema + (1 - decay) * theta
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(z, theta, rtol=0, atol=300 * eps)
    if "ema_decay" in options:
        np.testing.assert_allclose(opt.ema, ema, rtol=0, atol=300 * eps)


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_rates_masks_bounds_and_copies_of_complex_parameters(mode):
    z, low = np.zeros((2, 2), np.complex128), np.zeros((2, 2), np.complex64)
    rates = np.array([[1.0, 2.0], [3.0, 4.0]])
    mask = np.array([[True, True], [True, False]])
    high = np.array([[10.0, 10.0], [1.5 * np.sqrt(2), 10.0]])
    opt = fastopt.SGD(z, lr=rates, mask=mask, bounds=(-2.5, high), copy_to=low, complex_mode=mode)
    opt.step(np.full((2, 2), 1 - 1j))
    moved = {"parts": -2.5 + high[1, 0] * 1j, "modulus": -1.5 + 1.5j}[mode]
    np.testing.assert_allclose(z, [[-1 + 1j, -2 + 2j], [moved, 0]], rtol=1e-15)
    np.testing.assert_array_equal(low, z.astype(np.complex64))
    np.testing.assert_array_equal(opt.lr, rates)


def test_projected_gradients_of_complex_parameters():
    z = np.array([1 + 0.5j, 0j])
    opt = fastopt.SGD(z, lr=1.0, momentum=0.5, bounds=(-1.0, 1.0), project_gradient=True)
    opt.step(np.array([-1 - 1j, 2 + 0j]))
    np.testing.assert_array_equal(opt.state["p"], [-1j, 2.0])
    np.testing.assert_array_equal(z, [1 + 1j, -1.0])


def test_a_complex_number_is_a_bound_of_the_parts():
    z = np.zeros(2, np.complex128)
    opt = fastopt.SGD(z, lr=1.0, bounds=(-1 - 2j, np.complex64(1 + 3j)))
    opt.step(np.array([10 + 10j, -10 - 10j]))
    np.testing.assert_array_equal(z, [-1 - 2j, 1 + 3j])
    with refused(TypeError, "bounds must be real here, got complex128"):
        fastopt.SGD(np.zeros(2), bounds=(0j, None))
    with refused(ValueError, "bounds must hold no NaN"):
        fastopt.SGD(z, bounds=(complex(0.0, np.nan), None))


def test_bounds_of_parts_may_be_complex():
    z = np.zeros(2, np.complex64)
    opt = fastopt.SGD(z, lr=1.0, bounds=(np.array([-1 - 2j, -3 - 4j]), None))
    opt.step(np.full(2, 10 + 10j, np.complex64))
    np.testing.assert_array_equal(z, [-1 - 2j, -3 - 4j])
    with refused(ValueError, "no lower bound above the upper one", opt=opt):
        opt.param_groups[0]["bounds"] = (np.array([0j, 1j]), 0.5)
    with refused(TypeError, "bounds must be real here, got complex128"):
        fastopt.SGD(z, bounds=(np.zeros(2, complex), None), complex_mode="modulus")
    with refused(TypeError, "bounds must be real here, got complex128"):
        fastopt.SGD(np.zeros(2), bounds=(np.zeros(2, complex), None))


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_norms_errors_and_micro_batches_of_complex_gradients(mode):
    z = np.zeros((2, 2), np.complex64)
    opt = fastopt.SGD(z, lr=1.0, clip_norm=1.0, nonfinite="raise", complex_mode=mode)
    opt.accumulate(np.full((2, 2), 3 + 4j, np.complex64))
    opt.accumulate(np.full((2, 2), 3 + 4j))
    opt.step()
    assert opt.grad_norm == 10.0
    np.testing.assert_allclose(z, -(0.3 + 0.4j), rtol=1e-6)
    g = np.ones((2, 2), np.complex128)
    g[1, 0] = complex(0.0, np.inf)
    with refused(ValueError, "params must be finite, got inf at index (1, 0)", opt=opt):
        opt.step(g)
    mask = np.array([[True, True], [False, True]])
    masked = fastopt.SGD(z, mask=mask, nonfinite="raise", complex_mode=mode)
    masked.step(g)
    assert masked.grad_norm == pytest.approx(np.sqrt(3.0))


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_complex_runs_resume_with_the_same_bits(mode):
    rng = np.random.default_rng(0)
    flat = fastopt.flatten({"a": normal(rng, (2, 3)), "b": normal(rng, 4)})
    opt = fastopt.Adam(flat, complex_mode=mode, ema_decay=0.5)
    grads = flat.like()
    grads.buffer[...] = normal(rng, 10)
    opt.step(grads)
    theirs, loaded = pickle.loads(pickle.dumps((flat, opt)))
    twin = copy.deepcopy(opt)
    for each in (opt, loaded, twin):
        each.step(grads)
    assert_same_bits(real(theirs.buffer), real(flat.buffer))
    assert_same_bits(real(twin.params.buffer), real(flat.buffer))
    with opt.swap_ema():
        assert_same_bits(real(flat.buffer), real(loaded.ema.buffer))
    other = fastopt.Adam(flat.like(), complex_mode="parts" if mode == "modulus" else "modulus", ema_decay=0.5)
    with refused(TypeError, "must be of", opt=other):
        other.load_state_dict(opt.state_dict())


def test_real_and_complex_do_not_mix():
    z = fastopt.SGD(np.zeros(3, complex))
    for g in (np.ones(3), np.ones(3, np.float32)):
        with refused(TypeError, "grads must be of complex64 or complex128, got float", opt=z):
            z.step(g)
    w = fastopt.SGD(np.zeros(3))
    with refused(TypeError, "grads must be of float32, float64, float16 or bfloat16", "got complex128", opt=w):
        w.step(np.ones(3, complex))
    mixed = fastopt.Adam([np.zeros(3, complex), np.zeros(2, np.float32)], lr=0.1, complex_mode="modulus")
    mixed.step([np.full(3, 1j), np.ones(2)])
    np.testing.assert_allclose(mixed.params[0], -0.1j, rtol=1e-6)
    np.testing.assert_allclose(mixed.params[1], -0.1, rtol=1e-6)


@pytest.mark.parametrize("optimizer", REFUSING)
def test_moduli_are_refused_where_they_make_no_sense(optimizer):
    with refused(ValueError, f"complex_mode='modulus' is not for {optimizer.__name__}"):
        optimizer(np.zeros(3, complex), complex_mode="modulus")
    optimizer(np.zeros(3), complex_mode="modulus")  # there are none


def test_own_rules_take_complex_numbers():
    @fastopt.rule(state="v", hyper="lr beta=0.5")
    def rms(theta, g, lr, v, beta, one_minus_beta):
        v = beta * v + one_minus_beta * g * g
        return theta - lr * g / np.sqrt(v), v

    for mode, expected in (("parts", -np.sqrt(2.0) * (1 + 1j)), ("modulus", -np.sqrt(2.0) * (3 + 4j) / 5)):
        z = np.zeros(2, complex)
        rms(z, lr=1.0, complex_mode=mode).step(np.full(2, 3 + 4j))
        np.testing.assert_allclose(z, expected, rtol=1e-12)
