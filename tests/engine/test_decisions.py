"""Numbers that compiled code computes in each step: those that the same functions give in Python, to the last bit."""

import math

import numpy as np
import pytest

import fastopt
from fastopt.engine import steps
from tests.refusal import refused
from tests.table import RULES

DECIDING = [row for row in RULES if row.optimizer.decides and row.make(np.zeros(1)).param_groups[0].measure is None]


@pytest.mark.parametrize("row", DECIDING, ids=str)
def test_compiled_numbers_are_those_of_python(row):
    optimizer = row.make(np.zeros(3))
    (group,) = optimizer.param_groups
    for t in (1, 2, 3, 1000, 10**6, 10**12):
        group.step_count = t - 1
        plan = optimizer._stepping.settled(optimizer)
        plan.write_gradients({group.parameters[0]: np.zeros(3)}, token := plan.begin())
        assert plan.call(steps.BEGIN, token) == steps.DONE
        hyper = {**group.current, **group.running}
        expected = [hyper["lr"], *optimizer.coefficients(hyper, t), *group.last_coefficients]
        assert plan.works[0].update.rows.tolist() == [expected]


@fastopt.decision
def falling(t, product, share, size):
    if product > 0.5:
        product = product * share
    return product, product * math.sqrt(size)


@fastopt.rule
def scaled_descent(theta, g, lr, factor):
    return theta - lr * factor * g


class Falling(fastopt.Optimizer):
    """Gradient descent with a factor that falls until it is small, and is moved on by compiled code."""

    rule = scaled_descent
    scalars = {"product": 1.0}  # noqa: RUF012
    lr: float = fastopt.hyper(1.0)
    share: float = fastopt.hyper(0.75)

    def decide(self, hyper):
        return falling

    def decision_numbers(self, hyper):
        return hyper["share"], 4.0


def test_one_of_ones_own_moves_its_scalars_on():
    w = np.zeros(2)
    optimizer = Falling(w)
    products = []
    for _ in range(4):
        optimizer.step(np.ones(2))
        products.append(optimizer.param_groups[0].scalars["product"])
    assert products == [0.75, 0.5625, 0.421875, 0.421875]
    assert w.tolist() == [-2.0 * sum(products)] * 2
    resumed = Falling(np.zeros(2))
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0].scalars["product"] == 0.421875


def test_a_step_that_fails_moves_no_scalar():
    optimizer = Falling(np.zeros(2), nonfinite="raise")
    with refused(ValueError, "must be finite", opt=optimizer):
        optimizer.step(np.array([1.0, np.nan]))
    assert optimizer.param_groups[0].scalars["product"] == 1.0


def test_a_class_that_computes_coefficients_itself_decides_no_longer():
    class Fixed(Falling):
        def coefficients(self, hyper, t):
            return (float(t),)

    w = np.zeros(1)
    optimizer = Fixed(w)
    for _ in range(3):
        optimizer.step(np.ones(1))
    assert w.tolist() == [-6.0]


def test_one_that_comes_from_a_mixin_is_not_passed_over():
    class Fixed:
        def coefficients(self, hyper, t):
            return (float(t),)

    class Mixed(Fixed, Falling):
        pass

    class Again(Mixed):
        def decide(self, hyper):
            return falling

    for cls, first_two in ((Mixed, -3.0), (Again, -2.0 * (0.75 + 0.5625))):
        w = np.zeros(1)
        optimizer = cls(w)
        optimizer.step(np.ones(1))
        optimizer.step(np.ones(1))
        assert w.tolist() == [first_two]


@fastopt.decision
def root(t, product, share, size):
    return product, math.sqrt(t - 1.0)


class Choosing(Falling):
    """What computes its numbers is chosen by an option, and takes what steps come to, from the first one."""

    roots: bool = fastopt.hyper(False)

    def decide(self, hyper):
        return root if hyper["roots"] else falling


def test_the_choice_follows_hyper_parameters():
    w = np.zeros(1)
    optimizer = Choosing(w, roots=True)
    for roots, moved in ((True, 0.0), (True, 1.0), (False, 1.5), (True, math.sqrt(3.0))):
        optimizer.roots = roots
        w[...] = 0.0
        optimizer.step(np.ones(1))
        assert w.tolist() == [-moved]


@fastopt.rule
def weighted_squares(theta, g, lr, weight):
    return ((g, weight * g),)


@fastopt.decision
def unchanged(t, total):
    return (total,)


class Weighting(fastopt.Optimizer):
    """A rate of the sum of squares, with a weight that Python computes for what is summed up."""

    rule = scaled_descent
    lr: float = fastopt.hyper(1.0)

    def measure(self, hyper):
        return weighted_squares

    def measure_coefficients(self, hyper, t):
        return (float(t),)

    def decide(self, hyper):
        return unchanged


def test_what_is_summed_up_may_depend_on_the_count_of_steps():
    optimizer, moves = Weighting(w := np.zeros(2)), []
    for _ in range(3):
        before = w[0]
        optimizer.step(np.ones(2))
        moves.append(before - w[0])
    assert moves == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("numbers", [("much", 4.0), (1.0, None), (1.0, 4.0, 5.0)])
def test_wrong_numbers_change_nothing(numbers):
    class Own(Falling):
        given = 0.75, 4.0

        def decision_numbers(self, hyper):
            return self.given

    optimizer = Own(np.zeros(1))
    optimizer.step(np.ones(1))
    optimizer.given = numbers
    optimizer.share = 0.5
    with refused(TypeError, "decision_numbers must be a tuple of 2 floats, got", opt=optimizer):
        optimizer.step(np.ones(1))


def test_the_first_numbers_are_checked_too():
    class Own(Falling):
        def decision_numbers(self, hyper):
            return "much", 4.0

    with refused(TypeError, "decision_numbers must be a tuple of 2 floats, got", opt=(optimizer := Own(np.zeros(1)))):
        optimizer.step(np.ones(1))


@fastopt.decision
def rooted(t, lr):
    return (math.sqrt(lr),)


class Rooted(fastopt.Optimizer):
    """A rate of the root, which compiled code computes from the rate."""

    rule = scaled_descent
    lr: float = fastopt.hyper(1.0)

    def decide(self, hyper):
        return rooted

    def decision_numbers(self, hyper):
        return (hyper["lr"],)


class Steady(fastopt.Optimizer):
    """The same from Python, which says that it stays as it is."""

    rule = scaled_descent
    lr: float = fastopt.hyper(1.0)

    def coefficients(self, hyper, t):
        return (math.sqrt((hyper | {"t": t})["lr"]),)

    def is_steady(self, hyper, t):
        return True


@pytest.mark.parametrize("optimizer", [Rooted, Steady])
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_what_is_computed_from_the_rate_follows_it(optimizer, is_scheduled):
    rates, w = [1.0, 4.0, 0.25, 0.25], np.zeros(1)
    opt = optimizer(w, lr=rates.__getitem__ if is_scheduled else 1.0)
    for lr in rates:
        if not is_scheduled:
            opt.lr = lr
        opt.step(np.ones(1))
    assert w.tolist() == [-sum(lr * math.sqrt(lr) for lr in rates)]
