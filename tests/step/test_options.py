"""What is done around every rule: weight decay and ascent."""

from itertools import islice

import numpy as np
import pytest

import fastopt
from fastopt.optimizers.sgd import gradient_descent
from tests.peers import assert_equal_paths, torch_path
from tests.row import rule_on_arrays
from tests.table import TABLE, assert_follows, assert_same_bits, every_dtype, every_row, form

OPTIONS = [{"weight_decay": 0.1}, {"maximize": True}, {"weight_decay": 0.1, "maximize": True}]

every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
COUPLED = [
    row
    for row in TABLE
    if not row.make(np.zeros(1)).param_groups[0]["decoupled_weight_decay"] and "weight_decay" not in row.optimizer.own_options
]


@pytest.mark.wide(by=lambda row, options: (row.optimizer, str(options)))
@every_option
@pytest.mark.parametrize("row", COUPLED, ids=str)
def test_ascent_and_coupled_decay_change_the_gradient_that_the_oracle_sees(row, options):
    rng = np.random.default_rng(0)
    begin = rng.normal(size=10)
    sign = -1 if options.get("maximize") else 1

    def gradient(theta):
        return np.sin(3 * theta)

    theta = begin.copy()
    optimizer = row.make(theta, **options)
    oracle = row.oracle(begin, lambda x: sign * gradient(x) + options.get("weight_decay", 0.0) * x, **row.numbers)
    for steps, expected in enumerate(islice(oracle, 50), start=1):
        optimizer.step(gradient(theta))
        assert_follows(theta, expected, steps)


# PyTorch's Rprop is the one without weight decay.
HAVING = [(row, o) for o in OPTIONS for row in TABLE if row.torch and not (row.torch[0] == "Rprop" and "weight_decay" in o)]


@pytest.mark.wide(by=lambda row, options: (row.optimizer, str(options)))
@pytest.mark.peers
@pytest.mark.parametrize(("row", "options"), HAVING, ids=str)
def test_pytorch(row, options, torch):
    name, arguments = row.torch
    assert_equal_paths(lambda params: row.make(params, **options), torch_path(torch, name, arguments | options))


@pytest.mark.wide(by=lambda row, dtype, options: (form(row), dtype, str(options)))
@every_option
@every_dtype
@every_row
def test_bits_are_those_of_the_rule_on_arrays(row, dtype, options):
    rng = np.random.default_rng(0)
    theta, g = (rng.normal(size=1003).astype(dtype) for _ in range(2))
    optimizer = row.make(theta, **options)
    for _ in range(3):
        states = [optimizer.state[name].copy() for name in row.states]
        expected = rule_on_arrays(optimizer, theta.copy(), states, g)
        optimizer.step(g)
        actual = (theta, *(optimizer.state[name] for name in row.states))
        for name, one, other in zip(("theta", *row.states), actual, expected, strict=True):
            assert_same_bits(one, other, name)


@every_row
def test_an_option_that_is_off_costs_nothing(row):
    options = {"weight_decay": 0.0, "maximize": False}
    (group,) = row.make(np.zeros(3), **options).param_groups
    assert group.rule is row.rule
    assert group.option_coefficients == ()


def test_options_may_change_at_any_time_and_by_group():
    w, b = np.ones(3), np.ones(2)
    opt = fastopt.SGD([{"params": w}, {"params": b, "maximize": True}], lr=0.5)
    opt.step([np.ones(3), np.ones(2)])
    assert (w[0], b[0]) == (0.5, 1.5)
    opt.param_groups[0]["weight_decay"] = 0.5
    opt.param_groups[1]["maximize"] = False
    opt.step([np.ones(3), np.ones(2)])
    assert (w[0], b[0]) == (0.5 - 0.5 * (1 + 0.25), 1.0)
    opt.param_groups[0]["weight_decay"] = 0.0
    assert opt.param_groups[0].rule is gradient_descent


def test_decoupled_decay_takes_each_elements_own_rate():
    w = np.ones(3)
    rates = np.array([0.0, 0.1, 0.5])
    fastopt.AdamW(w, lr=rates, weight_decay=0.5).step(np.zeros(3))
    np.testing.assert_array_equal(w, 1 - rates * 0.5)
