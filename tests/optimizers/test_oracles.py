"""Each optimizer follows its literal transcription for 100 steps."""

from itertools import islice

import numpy as np
import pytest

import fastopt
from tests import oracles
from tests.table import TABLE, assert_follows, every_row, form, with_rates

STEPS = 100


def random_gradients():
    """Independent of theta, and exact in float32, so that both dtypes get the same numbers."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=50).astype(np.float32).astype(float)
    gradients = iter(rng.normal(size=(STEPS, 50)).astype(np.float32).astype(float))
    return theta, lambda _: next(gradients)


def quadratic():
    """Half of theta H theta, with condition number 1e6 and no axis along an eigenvector."""
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    hessian = rotation * np.geomspace(1e-6, 1.0, 10) @ rotation.T
    return rng.normal(size=10), lambda theta: hessian @ theta


def rosenbrock(dimensions):
    """A hundredth of Rosenbrock's function, so that gradient descent is stable with the table's learning rates."""

    def gradient(x):
        valley = x[1:] - x[:-1] ** 2
        dx = np.zeros_like(x)
        dx[:-1] = -400 * x[:-1] * valley - 2 * (1 - x[:-1])
        dx[1:] += 200 * valley
        return dx / 100

    return np.where(np.arange(dimensions) % 2, 1.0, -1.2), gradient


PROBLEMS = {
    "random gradients": random_gradients,
    "quadratic": quadratic,
    "rosenbrock 2": lambda: rosenbrock(2),
    "rosenbrock 5": lambda: rosenbrock(5),
    "rosenbrock 20": lambda: rosenbrock(20),
}


def follow(row, problem, dtype, oracle=None, **lr):
    """Take 100 steps, each with the gradient where the optimizer itself is, and compare all of them with the oracle's."""
    start, gradient = problem()
    theta = start.astype(dtype)
    optimizer = row.make(theta, **lr)
    path = (oracle or row.oracle)(start, problem()[1], **row.numbers | lr)
    for expected in islice(path, STEPS):
        optimizer.step(gradient(theta))
        assert_follows(theta, expected, STEPS)
    assert np.isfinite(theta).all()
    assert np.abs(theta - start).max() > 0.001, "this path is too short to prove anything"
    assert optimizer.step_count == STEPS


@pytest.mark.wide
@pytest.mark.parametrize("problem", PROBLEMS)
@every_row
def test_float64_follows_the_oracle(row, problem):
    follow(row, PROBLEMS[problem], np.float64)


@every_row
def test_float32_follows_the_oracle(row):
    follow(row, random_gradients, np.float32)


@pytest.mark.wide(by=lambda row, problem: (form(row), problem))
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("row", with_rates, ids=str)
def test_every_element_may_have_its_own_rate(row, problem):
    # The oracles broadcast: alpha, epsilon and gamma in their sources may as well be vectors.
    size = PROBLEMS[problem]()[0].size
    lr = row.make(np.zeros(1)).lr
    follow(row, PROBLEMS[problem], np.float64, lr=lr * np.linspace(0.5, 1.0, size))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradient_descent_follows_the_documents_rate_vector(problem):
    size = PROBLEMS[problem]()[0].size
    row = TABLE[0]
    assert row.optimizer is fastopt.SGD
    follow(row, PROBLEMS[problem], np.float64, oracle=oracles.rate_vector, lr=np.linspace(0.002, 0.02, size))


def test_a_zero_gradient_adds_lr_over_eps_to_a_rate():
    # Where the document's AdaGrad differs most from the published one.
    theta = np.zeros(2)
    optimizer = fastopt.AdaGrad(theta, lr=0.5, eps=0.25, accumulate="rates")
    optimizer.step(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(optimizer.state["alpha"], [2.0, 0.4])
    optimizer.step(np.array([1.0, 1.0]))
    np.testing.assert_allclose(theta, [-2.4, -1.2], rtol=1e-15)


def test_steps_that_are_not_rectified_leave_the_root_alone():
    # The rule divides by it all the same: 0 / 0 would be NaN for good.
    theta = np.array([1.0, 2.0])
    optimizer = fastopt.RAdam(theta, lr=0.5, eps=0.0)
    optimizer.step(np.array([0.0, 4.0]))
    np.testing.assert_allclose(theta, [1.0, 0.0], atol=1e-14)


# ASGD decays, FTRL pulls to zero, NoisySGD adds noise, and Yogi's average starts above zero.
MOVING = (fastopt.ASGD, fastopt.FTRL, fastopt.NoisySGD, fastopt.Yogi)
RESTING = {row.compiled_rule: row for row in TABLE if row.optimizer not in MOVING and row.numbers.get("eps") != 0.0}


@pytest.mark.parametrize("row", RESTING.values(), ids=str)
def test_what_has_no_gradient_stands_still(row):
    theta, g = np.linspace(-1.0, 1.0, 9), np.zeros(9)
    g[4] = 0.5
    own = "weight_decay" in row.make(theta.copy()).param_groups[0].hyper
    opt = row.make(theta, **({"weight_decay": 0.0} if own else {}))
    for _ in range(3):
        opt.step(g)
    assert np.array_equal(np.flatnonzero(theta != np.linspace(-1.0, 1.0, 9)), [4])


def test_prodigy_sums_gradients_with_their_signs():
    """Algorithm 4 needs only the norm of the sum, but who looks at the state sees the gradients' direction."""
    opt = fastopt.Prodigy(np.ones(2), lr=0.2, d0=1e-3)
    opt.step(g := np.array([3.0, -2.0]))
    np.testing.assert_allclose(opt.state["s"], 1e-3 * 0.2 * np.sqrt(1 - 0.999) / (1 - 0.9) * g, rtol=1e-12)
