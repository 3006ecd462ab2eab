"""Coefficients that no longer change are kept, and what changes them is noticed."""

import itertools

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
    optimizer.lr = 0.5  # of which they don't depend
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


def test_a_new_rate_is_taken_while_something_else_follows_a_schedule():
    w = np.zeros(3)
    optimizer = fastopt.SGD(w, lr=0.1, weight_decay=lambda step: 0.0)
    for lr in (0.1, 0.5, 2.0):
        optimizer.lr = lr
        w[...] = 0.0
        optimizer.step(np.ones(3))
        assert w.tolist() == [-lr] * 3
        optimizer.step(np.ones(3), lr=1.0)
        assert w.tolist() == [-lr - 1.0] * 3


def test_the_last_of_several_rates_counts():
    w = np.zeros(3)
    optimizer = fastopt.SGD(w, lr=0.1)
    optimizer.step(np.ones(3))
    rates = [0.5, np.array([1.0, 2.0, 3.0]), 0.25, lambda step: 4.0, 0.5]
    for first, last in itertools.pairwise(rates):
        optimizer.lr = first
        optimizer.lr = last
        w[...] = 0.0
        optimizer.step(np.ones(3))
        np.testing.assert_array_equal(-w, last(0) if callable(last) else last)


class RateAgain(fastopt.SGD):
    """Takes the rate among its coefficients, which are steady."""

    def choose(self, hyper):
        return rate_again, ()

    def coefficients(self, hyper, t):
        return (hyper["lr"],)

    def is_steady(self, hyper, t):
        return True


@fastopt.rule
def rate_again(theta, g, lr, again):
    return theta - again * g


def test_coefficients_may_depend_on_the_rate():
    w = np.zeros(3)
    optimizer = RateAgain(w, lr=1.0)
    optimizer.step(np.ones(3))
    optimizer.lr = 0.5
    optimizer.step(np.ones(3))
    assert w.tolist() == [-1.5] * 3


class Mixin:
    def coefficients(self, hyper, t):
        return super().coefficients({**hyper, "momentum": hyper["momentum"] / t}, t)


def test_coefficients_of_a_mixin_are_computed_in_each_step():
    class Mixed(Mixin, fastopt.SGD):
        pass

    class Below(Mixed):
        pass

    for cls in (Mixed, Below):
        kept, expected = cls(np.ones(3), momentum=0.5), fastopt.SGD(np.ones(3), momentum=0.5)
        for t, g in enumerate(GRADIENTS, 1):
            kept.step(g)
            expected.param_groups[0]["momentum"] = 0.5 / t
            expected.step(g)
        assert_same_bits(kept.params, expected.params)
