"""A step gives the bits of its rule on whole NumPy arrays: at every size, for every number of threads, whatever the values."""

import tracemalloc

import numpy as np
import pytest

import fastopt
from fastopt.engine.launch import Launch
from fastopt.engine.steps import DONE, GRAIN, step_function
from tests.row import rule_on_arrays
from tests.table import FLOATS, assert_same_bits, every_dtype, every_rule, form

THREADS = (1, 2, 3, 4)

# Nothing, less than a vector, around the widths of vectors and of unrolled loops, and around the places where threads split.
SPLITS = sorted({GRAIN * threads * chunks for threads in THREADS for chunks in (1, 2)})
SIZES = (0, 1, 7, 15, 16, 17, 31, 33, 63, 64, 65, *(split + i for split in SPLITS for i in (-1, 0, 1)))

SPECIAL = (0.0, -0.0, np.nan, np.inf, -np.inf, 1e-310, -1e-42, 1e-45, 1e30, -1e300)

every_gradient = pytest.mark.parametrize("gradient", FLOATS, ids=lambda dtype: f"g_{dtype.__name__}")
every_lr = pytest.mark.parametrize("is_array", [False, True], ids=["lr_number", "lr_array"])


@pytest.fixture
def launches(monkeypatch):
    """Send all steps, small ones and those of one thread too, through the parallel kernel; a list that grows with each."""
    launched = []

    def prepare(_):
        def run(*arguments):
            threads = fastopt.get_num_threads()
            ended = step_function(parallel=True)(threads, *arguments)
            if ended == DONE:  # and not where a gradient has another dtype than the last one
                launched.append(threads)
            return ended

        return run

    monkeypatch.setattr(Launch, "prepare", prepare)
    return launched


def salted(rng, size, dtype):
    """Normal random numbers; about one in eight is a signed zero, NaN, infinite, subnormal or huge."""
    values = rng.normal(size=size)
    salt = rng.choice(SPECIAL, size=size)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(rng.random(size) < 0.125, salt, values).astype(dtype)


def check_steps(row, size, dtype, gradient, is_array):
    rng = np.random.default_rng(size)
    theta = salted(rng, size, dtype)
    lr = rng.random(size) if is_array and row.optimizer.takes_rates else 0.01
    optimizer = row.make(theta, lr=lr)
    for name, state in optimizer.state.items():
        # Of two zeros of both signs np.maximum may give either; a largest value has no sign.
        state[...] = abs(salted(rng, size, dtype)) if name in ("u", "v_max") else salted(rng, size, dtype)
    for step in range(2):
        g = salted(rng, size, gradient)
        g.flags.writeable = step == 0
        states = [optimizer.state[name].copy() for name in row.states]
        expected = rule_on_arrays(optimizer, theta.copy(), states, g)
        before = g.copy()
        optimizer.step(g)
        actual = (theta, *(optimizer.state[name] for name in row.states))
        for name, a, e in zip(("theta", *row.states), actual, expected, strict=True):
            assert_same_bits(a, e, f"{name} of size {size} after step {step}")
        assert_same_bits(g, before, "the gradient is only read")


@pytest.mark.wide
@every_dtype
@every_rule
def test_steps_have_the_bits_of_the_rule(row, dtype):
    for size in SIZES:
        check_steps(row, size, dtype, dtype, False)


@pytest.mark.wide(by=lambda row, **others: (form(row), row.optimizer.takes_rates, *others.items()))
@every_lr
@every_gradient
@every_dtype
@every_rule
def test_serial_steps_have_the_bits_of_the_rule(row, dtype, gradient, is_array):
    for size in SIZES:
        check_steps(row, size, dtype, gradient, is_array)


@pytest.mark.wide(by=lambda row, **others: (form(row), row.optimizer.takes_rates, *others.items()))
@pytest.mark.parametrize("threads", THREADS)
@every_lr
@every_gradient
@every_dtype
@every_rule
def test_parallel_steps_have_the_bits_of_the_rule(row, dtype, gradient, is_array, threads, launches):
    fastopt.set_num_threads(threads)
    for size in SIZES:
        check_steps(row, size, dtype, gradient, is_array)
    # What compiled code computes is launched for the expectation, too.
    optimizer = row.make(np.zeros(1))
    per_step = 2 if optimizer.decides or optimizer.param_groups[0].measure is not None else 1
    assert launches == [threads] * (2 * len(SIZES) * per_step)


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@every_rule
def test_a_big_array_has_the_same_bits_for_every_number_of_threads(row, dtype):
    rng = np.random.default_rng(0)
    size = 2_000_003
    theta, g = salted(rng, size, dtype), salted(rng, size, dtype)
    results = []
    for threads in THREADS:
        fastopt.set_num_threads(threads)
        own = theta.copy()
        optimizer = row.make(own)
        for _ in range(2):
            optimizer.step(g)
        results.append((own, *(optimizer.state[name] for name in row.states)))
    for threads, result in zip(THREADS, results, strict=True):
        for name, one, other in zip(("theta", *row.states), results[0], result, strict=True):
            assert_same_bits(other, one, f"{name} with {threads} threads")


def transposed(g):
    """The same elements in another order than the parameter's: it has to be copied, to memory that is kept."""
    return np.ascontiguousarray(g.reshape(1000, -1).T).T


def read_only(g):
    g.flags.writeable = False
    return g


GRADIENTS = {"as it is": lambda g: g, "read-only": read_only, "a view": lambda g: g[:], "transposed": transposed}


@pytest.mark.wide(by=lambda row, **others: (form(row), *others.items()))
@pytest.mark.parametrize("kind", GRADIENTS)
@every_gradient
@every_dtype
@every_rule
def test_a_step_allocates_nothing_that_grows_with_the_parameters(row, dtype, gradient, kind):
    theta = np.ones((1000, 1000), dtype)
    g = GRADIENTS[kind](np.ones((1000, 1000), gradient))
    optimizer = row.make(theta)
    optimizer.step(g)
    tracemalloc.start()
    try:
        optimizer.step(g)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024, f"{peak} bytes for a parameter of {theta.nbytes}"
