"""Coefficients that no longer change are kept, and what changes them is noticed."""

import numpy as np
import pytest

import fastopt
from tests.table import assert_same_bits, every_row


@every_row
def test_coefficients_that_are_said_to_be_steady_are(row):
    optimizer = row.make(np.zeros(3))
    hyper = optimizer.param_groups[0].current
    for t in (1, 2, 3, 1000):
        if optimizer.is_steady(hyper, t):
            for later in (t + 1, t + 2, t + 1000):
                assert optimizer.coefficients(hyper, later) == optimizer.coefficients(hyper, t)


GRADIENTS = np.random.default_rng(0).normal(size=(8, 3))

STEADY = {"AdaDelta", "AdaGrad", "Lion", "RMSProp", "Rprop", "SGD", "Signum"}


@every_row
def test_these_become_steady(row):
    optimizer = row.make(np.zeros(3))
    hyper = optimizer.param_groups[0].current
    assert optimizer.is_steady(hyper, 2) == (row.optimizer.__name__ in STEADY and not hyper.get("lr_decay"))


class Decaying(fastopt.RMSProp):
    """Overrides the coefficients alone, of a class whose own ones are steady."""

    def coefficients(self, hyper, t):
        return super().coefficients({**hyper, "rho": 1.0 - 1.0 / t}, t)


def test_coefficients_of_a_subclass_are_computed_in_each_step():
    kept, expected = Decaying(np.ones(3)), fastopt.RMSProp(np.ones(3))
    for t, g in enumerate(GRADIENTS, 1):
        kept.step(g)
        expected.param_groups[0]["rho"] = 1.0 - 1.0 / t if t > 1 else 0.0
        expected.step(g)
    assert_same_bits(kept.params, expected.params)


class Counting(fastopt.SGD):
    calls = 0

    def is_steady(self, hyper, t):
        return super().is_steady(hyper, t)

    def coefficients(self, hyper, t):
        type(self).calls += 1
        return super().coefficients(hyper, t)


@pytest.mark.parametrize("arrays", [1, 2])
def test_steady_coefficients_are_computed_once(arrays, monkeypatch):
    monkeypatch.setattr(Counting, "calls", 0)
    params = [np.zeros(3) for _ in range(arrays)]
    optimizer = Counting(params, momentum=0.9)
    for _ in range(5):
        optimizer.step([np.ones(3)] * arrays)
    assert Counting.calls == 1
    optimizer.param_groups[0]["momentum"] = 0.5
    for _ in range(5):
        optimizer.step([np.ones(3)] * arrays)
    assert Counting.calls == 2


def stepped(optimizer, gradients):
    for g in gradients:
        optimizer.step(g)
    return optimizer.params


@pytest.mark.parametrize("change", [{"rho": 0.5}, {"eps": 0.1}, {"weight_decay": 0.3}, {"lr": 0.5}, {"maximize": True}])
def test_what_changes_is_noticed(change):
    kept, fresh = (fastopt.RMSProp(np.ones(3), lr=0.1) for _ in range(2))
    stepped(kept, GRADIENTS[:4])
    stepped(fresh, GRADIENTS[:4])
    kept.param_groups[0].update(change)
    fresh.param_groups[0].update(change)
    fresh.param_groups[0].steady = None
    fresh.is_steady = lambda hyper, t: False
    assert_same_bits(stepped(kept, GRADIENTS[4:]), stepped(fresh, GRADIENTS[4:]))


def test_a_state_dict_of_the_beginning_begins_anew():
    first = {"momentum": 0.9, "dampening": 0.5}
    optimizer, fresh = (fastopt.SGD(np.ones(3), lr=0.1, **first) for _ in range(2))
    start = optimizer.state_dict()
    stepped(optimizer, GRADIENTS[:4])
    optimizer.load_state_dict(start)
    optimizer.params[...] = 1.0
    assert_same_bits(stepped(optimizer, GRADIENTS), stepped(fresh, GRADIENTS))


def test_a_schedule_is_followed():
    rates = [0.9, 0.8, 0.7, 0.6]
    scheduled = fastopt.RMSProp(np.ones(3), rho=lambda step: rates[step])
    expected = fastopt.RMSProp(np.ones(3))
    for rho, g in zip(rates, GRADIENTS, strict=False):
        scheduled.step(g)
        expected.param_groups[0]["rho"] = rho
        expected.step(g)
    assert_same_bits(scheduled.params, expected.params)
    scheduled.param_groups[0]["rho"] = 0.6
    scheduled.step(GRADIENTS[4])
    scheduled.param_groups[0]["rho"] = lambda step: 0.1
    scheduled.step(GRADIENTS[5])
    expected.step(GRADIENTS[4])
    expected.param_groups[0]["rho"] = 0.1
    expected.step(GRADIENTS[5])
    assert_same_bits(scheduled.params, expected.params)
