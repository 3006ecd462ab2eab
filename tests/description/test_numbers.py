"""Whatever is a real scalar is a number, wherever one is taken; what only looks like one is not."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastopt
from fastopt import schedules as s
from fastopt.description.hyperparameters import integer, real
from tests.refusal import refused
from tests.table import assert_same_bits


class Half:
    def __float__(self):
        return 0.5


OWN = [0.5, np.float32(0.5), np.longdouble(0.5), np.array(0.5), np.array(0.5, object), Decimal("0.5"), Fraction(1, 2), Half()]

PEERS = {
    "a JAX scalar": lambda jax, torch: jax.numpy.float32(0.5),
    "JAX's bfloat16": lambda jax, torch: jax.numpy.bfloat16(0.5),
    "a tensor": lambda jax, torch: torch.tensor(0.5),
    "a tensor of bfloat16": lambda jax, torch: torch.tensor(0.5, dtype=torch.bfloat16),
    "a parameter": lambda jax, torch: torch.nn.Parameter(torch.tensor(0.5)),
}


def assigned(opt, lr):
    opt.param_groups[0]["lr"] = lr
    return opt


@pytest.fixture
def jax(optax):
    import jax

    return jax


WHERE = {
    "lr": lambda half, w: fastopt.SGD(w, lr=half).step(np.ones(3)),
    "lr later": lambda half, w: assigned(fastopt.SGD(w), half).step(np.ones(3)),
    "a schedule's value": lambda half, w: fastopt.SGD(w, lr=lambda step: half).step(np.ones(3)),
    "a schedule's part": lambda half, w: fastopt.SGD(w, lr=s.Joined([half, 0.1], [2])).step(np.ones(3)),
    "a schedule's argument": lambda half, w: fastopt.SGD(w, lr=s.Cosine(half, 10)).step(np.ones(3)),
    "scale": lambda half, w: fastopt.SGD(w, lr=1.0).step(np.ones(3), scale=half),
    "clip_value": lambda half, w: fastopt.SGD(w, lr=1.0, clip_value=half).step(np.ones(3)),
    "bounds": lambda half, w: fastopt.SGD(w, lr=9.0, bounds=(half, None)).step(np.ones(3)),
    "one of betas": lambda half, w: w.__isub__(fastopt.Adam(w, betas=(half, 0.99)).param_groups[0]["betas"][0]),
}


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
@pytest.mark.parametrize("half", OWN, ids=lambda half: type(half).__name__)
def test_a_real_scalar_is_a_number(half, where):
    w = np.ones(3)
    where(half, w)
    assert_same_bits(w, np.full(3, 0.5))


@pytest.mark.peers
@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
@pytest.mark.parametrize("make", PEERS.values(), ids=PEERS)
def test_a_scalar_of_another_library_is_a_number(make, where, jax, torch):
    w = np.ones(3)
    where(make(jax, torch), w)
    assert_same_bits(w, np.full(3, 0.5))


@pytest.mark.peers
def test_schedules_of_optax_are_schedules(optax):
    theirs = optax.cosine_decay_schedule(0.1, 10)
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=s.Warmup(theirs, 2))
    for _ in range(6):
        opt.step(np.ones(3))
    highest = float(theirs(0))
    np.testing.assert_allclose(w, -(highest / 2 + sum(float(theirs(step)) for step in range(4))), rtol=1e-15)


NOT_NUMBERS = [
    *(True, np.True_, 0.5j, np.complex64(0.5), np.clongdouble(0.5), np.array(0.5j), np.array(0.5j, object), "0.5", b"0.5"),
    *(np.str_("0.5"), np.array("0.5"), np.array([0.5]), np.ones(2), [0.5], (0.5,), {}, None, object()),
    *(datetime.timedelta(1), np.timedelta64(1, "ns"), np.array(np.timedelta64(1, "ns")), np.datetime64("2020"), np.ma.masked),
    *(np.array(None), np.zeros((), "i4,i4")[()]),
]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_only_looks_like_a_number_is_refused(value):
    with refused(TypeError, "eps must be a real number, got ", repr(value)):
        fastopt.Adam(np.ones(3), eps=value)
    opt = fastopt.SGD(np.ones(3), lr=lambda step: value)
    with refused(TypeError, "the schedule's lr(0) must be a real number, got ", opt=opt):
        opt.step(np.ones(3))
    with refused(TypeError, "n must be an integer, got "):
        integer("n", value)


@pytest.mark.peers
def test_what_only_looks_like_a_number_elsewhere_is_refused(jax, torch):
    values = [
        jax.numpy.bool_(True),
        jax.numpy.complex64(1),
        jax.numpy.ones(1),
        torch.tensor(True),
        torch.tensor(1j),
        torch.ones(1),
    ]
    for value in [*values, torch.ones((), device="meta")]:
        with refused(TypeError, "eps must be a real number, got "):
            fastopt.Adam(np.ones(3), eps=value)

    def traced(x):
        with refused(TypeError, "x must be a real number, got "):
            real("x", x)
        return x

    jax.jit(traced)(1.0)


@pytest.mark.peers
def test_integers_are_those_without_rounding(jax, torch):
    for value in (3, np.int8(3), np.array(3), jax.numpy.int32(3), torch.tensor(3)):
        assert integer("n", value) == 3
        assert s.PlainAverage(start=value)(5) == pytest.approx(2 / 3)
    for value in (3.0, np.float32(3), torch.tensor(True), torch.tensor([3])):
        with refused(TypeError, "n must be an integer, got "):
            integer("n", value)
    with refused(ValueError, "n must be at least 4, got 3"):
        integer("n", 3, 4)


def test_an_integer_too_large_for_a_number_is_refused():
    for value in (10**400, Fraction(10**400)):
        with refused(ValueError, "lr must be a finite number, got "):
            fastopt.SGD(np.ones(3), lr=value)


@pytest.mark.peers
def test_tuples_of_numbers_may_be_vectors(jax, torch):
    for betas in (np.array([0.5, 0.25]), jax.numpy.array([0.5, 0.25]), torch.tensor([0.5, 0.25])):
        assert fastopt.Adam(np.ones(3), betas=betas).param_groups[0]["betas"] == (0.5, 0.25)
    for betas, error in ((0.5, TypeError), (np.float64(0.5), TypeError), (np.ones((2, 1)), TypeError), ([0.5], ValueError)):
        with refused(error, "betas must be 2 numbers, got "):
            fastopt.Adam(np.ones(3), betas=betas)
