"""Optimizers inside of compiled loops of one's own."""

import threading

import numba
import numpy as np
import pytest

import fastopt
import fastopt.rules
from tests.refusal import refused
from tests.table import RULES, assert_same_bits, every_dtype, form


def can_be_embedded(row):
    (group,) = row.make(np.zeros(1)).param_groups
    return group.measure is None and not row.optimizer.elements


EMBEDDED = [row for row in RULES if can_be_embedded(row)]


def embed(row, dtype, **more):
    return fastopt.embed(row.optimizer, dtype, **row.form, **row.numbers, **more)


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@pytest.mark.parametrize("row", EMBEDDED, ids=str)
def test_a_whole_loop_in_compiled_code_has_the_bits_of_steps(row, dtype):
    embedded = embed(row, dtype)
    step = embedded.step

    @numba.njit(error_model="numpy")
    def run(theta, g, states, table):
        for t in range(table.shape[0]):
            g[:] = np.sin(theta * theta.dtype.type(t + 1))
            step(theta, g, states, table[t], 0, theta.size)

    theta = np.linspace(-1.0, 1.0, 101).astype(dtype)
    states = embedded.states(theta)
    plain, opt = theta.copy(), None
    run(theta, np.zeros_like(theta), states, embedded.table(5))
    opt = row.make(plain)
    g = np.zeros_like(plain)

    @numba.njit(error_model="numpy")
    def gradient(theta, g, t):
        g[:] = np.sin(theta * theta.dtype.type(t))

    for t in range(1, 6):
        gradient(plain, g, t)
        opt.step(g)
    assert_same_bits(theta, plain)
    for name, state in zip(embedded.state_names, states, strict=True):
        assert_same_bits(state, opt.state[name], name)


@every_dtype
def test_a_rule_in_a_parallel_loop_never_needs_the_gradient_in_memory(dtype):
    adam = fastopt.embed(fastopt.AdamW, dtype, lr=0.1, ema_decay=0.5, bounds=(-0.5, 0.5))
    rule, values = adam.rule, adam.values

    @numba.njit(parallel=True, error_model="numpy")
    def run(w, ema, m, v, target, table):
        for t in range(table.shape[0]):
            numbers = values(table[t])
            for i in numba.prange(w.size):
                g = w[i] - target[i]
                w[i], ema[i], m[i], v[i] = rule(w[i], g, numbers[0], ema[i], m[i], v[i], *numbers[1:])

    target = np.linspace(-1.0, 1.0, 1001).astype(dtype)
    w, plain = np.zeros_like(target), np.zeros_like(target)
    opt = fastopt.AdamW(plain, lr=0.1, ema_decay=0.5, bounds=(-0.5, 0.5))
    states = adam.states(w)
    run(w, *states, target, adam.table(20))
    for _ in range(20):
        opt.step(plain - target)
    assert_same_bits(w, plain)
    assert_same_bits(states[0], opt.ema)


def test_threads_of_ones_own_step_spans_without_the_gil():
    step = (momentum := fastopt.embed(fastopt.SGD, lr=0.1, momentum=0.9)).step
    kernel = numba.njit(nogil=True)(lambda theta, g, states, row, begin, end: step(theta, g, states, row, begin, end))
    theta, g = np.zeros(1000), np.linspace(0.0, 1.0, 1000)
    states, table = momentum.states(theta), momentum.table(3)
    plain = fastopt.SGD(np.zeros(1000), lr=0.1, momentum=0.9)
    for row in table:
        threads = [threading.Thread(target=kernel, args=(theta, g, states, row, lo, lo + 250)) for lo in range(0, 1000, 250)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        plain.step(g)
    assert_same_bits(theta, plain.params)


def test_tables_follow_schedules():
    table = fastopt.embed(fastopt.SGD, lr=lambda step: 0.5**step).table(4)
    np.testing.assert_array_equal(table, [[1.0], [0.5], [0.25], [0.125]])
    assert fastopt.embed(fastopt.Adam).table(0).shape == (0, 8)
    with refused(ValueError, "steps must be at least 0, got -1"):
        fastopt.embed(fastopt.Adam).table(-1)


@pytest.mark.parametrize("row", EMBEDDED, ids=str)
def test_tables_start_where_they_are_asked_to(row):
    embedded = embed(row, np.float64)
    table = embedded.table(9)
    assert_same_bits(embedded.table(4, first=5), table[4:8])
    assert_same_bits(embedded.table(np.int64(1), first=9), table[8:])
    for t in (7, 2):
        assert_same_bits(embedded.row(t), table[t - 1])


def test_tables_of_schedules_start_later_too():
    sgd = fastopt.embed(fastopt.SGD, lr=lambda step: 0.5**step)
    np.testing.assert_array_equal(sgd.table(2, first=3), [[0.25], [0.125]])
    np.testing.assert_array_equal(sgd.row(1000), [0.5**999])
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with refused(error, "t must be "):
            sgd.row(bad)
        with refused(error, "first must be "):
            sgd.table(3, first=bad)
    with refused(TypeError, "steps must be an integer, got 2.0"):
        sgd.table(2.0)


@fastopt.decision
def doubled(t, factor):
    return 2.0 * factor, 2.0 * factor, 0.5


class Doubling(fastopt.Optimizer):
    scalars = {"factor": 0.5}  # noqa: RUF012
    lr: float = fastopt.hyper(1.0)

    def choose(self, hyper):
        return fastopt.rules.momentum, ("p",)

    def decide(self, hyper):
        return doubled


def test_running_scalars_are_followed_from_the_first_step_on():
    doubling = fastopt.embed(Doubling)
    np.testing.assert_array_equal(doubling.table(2, first=3), [[1.0, 4.0, 0.5], [1.0, 8.0, 0.5]])
    np.testing.assert_array_equal(doubling.row(1), [1.0, 1.0, 0.5])


def test_rules_are_those_of_the_optimizers():
    assert set(map(fastopt.rules.__dict__.get, fastopt.rules.__all__)) == {row.rule for row in RULES}
    from fastopt.rules import gradient_descent

    assert numba.njit(lambda x: gradient_descent(x, x, 0.5))(2.0) == 1.0


BAD = [
    (fastopt.LARS, {}, ValueError, "LARS can't be embedded: with these arguments it needs sums"),
    (
        fastopt.Adam,
        {"state_dtype": "bfloat16"},
        ValueError,
        "Adam can't be embedded with state_dtype: rules take states in the parameters' dtype",
    ),
    (fastopt.NoisySGD, {}, ValueError, "NoisySGD can't be embedded: with these arguments it needs arrays"),
    (fastopt.SGD, {"lr": np.ones(1)}, ValueError, "needs arrays"),
    (fastopt.SGD, {"clip_norm": 1.0}, ValueError, "needs sums"),
    (fastopt.SGD, {"nonfinite": "skip"}, ValueError, "needs sums"),
    (fastopt.SGD, {"zero_grad": True}, ValueError, "needs arrays"),
    (fastopt.SGD, {"cautious": True}, ValueError, "needs sums"),
    (fastopt.SGD, {"frozen": True}, ValueError, "a frozen group takes no steps"),
    (fastopt.Optimizer, {}, TypeError, "optimizer must be a class of optimizers"),
    (fastopt.SGD, {"lr": -1.0}, ValueError, "lr must be"),
    (fastopt.SGD, {"dtype": "int32"}, TypeError, "dtype must be float32 or float64"),
    (np.ndarray, {}, TypeError, "optimizer must be a class of optimizers"),
]


@pytest.mark.parametrize(("optimizer", "arguments", "error", "words"), BAD, ids=str)
def test_what_can_not_be_embedded_is_refused(optimizer, arguments, error, words):
    with refused(error, words):
        fastopt.embed(optimizer, **arguments)


def test_states_of_another_dtype_are_refused():
    with refused(TypeError, "theta must be of float64, got float32"):
        fastopt.embed(fastopt.Adam).states(np.zeros(3, np.float32))


def test_a_rule_with_a_wrong_number_of_values_does_not_compile():
    from fastopt.rules import adam

    with pytest.raises(numba.TypingError, match="missing"):
        numba.njit(lambda x: adam(x, x, x))(1.0)


@pytest.mark.wide
@pytest.mark.parametrize("view", [np.s_[:], np.s_[::-1], np.s_[::2], np.s_[1:], np.s_[7:31], np.s_[29:9:-1]], ids=str)
@pytest.mark.parametrize(("begin", "end"), [(0, 20), (3, 17), (5, 5), (19, 20)])
def test_spans_of_views_with_any_stride_are_stepped(view, begin, end):
    step = fastopt.embed(fastopt.SGD, np.float32, lr=1.0).step
    kernel = numba.njit(lambda theta, g, row: step(theta, g, (), row, begin, end))
    base = np.zeros(60, np.float32)
    theta = base[view]
    kernel(theta, np.ones(60, np.float32), fastopt.embed(fastopt.SGD, np.float32, lr=1.0).table(1)[0])
    expected = np.zeros(60, np.float32)
    expected[view][begin:end] = -1.0
    assert_same_bits(base, expected)
