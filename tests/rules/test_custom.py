"""Optimizers from a user's own rule: they do all that others do, and mistakes are told clearly."""

import code
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastopt
from fastopt.optimizers import lion
from tests import fresh
from tests.refusal import refused
from tests.table import assert_same_bits, every_dtype


@fastopt.rule(state="m", hyper="lr beta")
def sign_descent(theta, g, lr, m, beta, one_minus_beta):
    m = beta * m + one_minus_beta * g
    return theta - lr * np.sign(m), m


def corrections(hyper, t):
    root = np.sqrt(1.0 - hyper["beta2"] ** t)
    return {"debias": root / (1.0 - hyper["beta1"] ** t), "small": hyper["eps"] * root}


@fastopt.rule(state="m v", hyper={"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, coefficients=corrections)
def own_adam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, small):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * debias * (m / (np.sqrt(v) + small)), m, v


@fastopt.rule(hyper="lr=0.1", coefficients=lambda hyper, t: {"share": 1.0 / t})
def harmonic(theta, g, lr, share):
    return theta - lr * share * g


def gradients(size, steps, dtype):
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(dtype) for _ in range(steps)]


@every_dtype
@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_adam_written_by_a_user_has_the_bits_of_adam(dtype, size):
    own, theirs = np.ones(size, dtype), np.ones(size, dtype)
    one, other = own_adam(own), fastopt.Adam(theirs)
    for g in gradients(size, 5, dtype):
        one.step(g)
        other.step(g)
    assert_same_bits(own, theirs)
    assert_same_bits(one.state["v"], other.state["v"])


def test_the_issues_example():
    w = np.array([1.0, 2.0, 3.0], np.float32)
    opt = sign_descent(w, lr=0.5, beta=0.75)
    assert isinstance(opt, fastopt.Optimizer)
    assert type(opt).__name__ == "sign_descent"
    opt.step(np.array([1.0, -1.0, 0.0], np.float32))
    np.testing.assert_array_equal(w, [0.5, 2.5, 3.0])
    np.testing.assert_array_equal(opt.state["m"], [0.25, -0.25, 0.0])


def test_the_rule_itself_stays_at_hand():
    assert sign_descent.rule(1.0, 2.0, 0.5, 0.0, 0.75, 0.25) == (0.5, 0.5)


def test_coefficients_of_ones_own():
    w = np.zeros(2)
    opt = harmonic(w)
    for _ in range(3):
        opt.step(np.ones(2))
    np.testing.assert_allclose(w, -0.1 * (1 + 1 / 2 + 1 / 3))


def test_first_values_of_states():
    @fastopt.rule(state={"r": 0.5})
    def accumulated(theta, g, lr, r):
        r = r + g * g
        return theta - lr * g / np.sqrt(r), r

    opt = accumulated(np.zeros(3), lr=1.0)
    np.testing.assert_array_equal(opt.state["r"], np.full(3, 0.5))


def test_options_groups_schedules_and_state_dict():
    def make(params):
        return sign_descent(params, lr=lambda step: 0.1 / (1 + step), beta=0.5, weight_decay=0.1, maximize=True)

    params = [np.ones(4), np.ones(3)]
    opt = make([{"params": params[0]}, {"params": params[1], "beta": 0.0, "weight_decay": 0.0}])
    for _ in range(3):
        opt.step([np.ones(4), -np.ones(3)])
    other = [array.copy() for array in params]
    resumed = make([{"params": other[0]}, {"params": other[1]}])
    resumed.load_state_dict(opt.state_dict())
    for one in (opt, resumed):
        one.step([np.cos(np.arange(4.0)), np.sin(np.arange(3.0))])
    for a, b in zip(params, other, strict=True):
        assert_same_bits(a, b)
    assert opt.param_groups[1]["beta"] == 0.0


def test_cautious_and_masked():
    w = np.zeros(4)
    mask = np.array([True, True, False, True])
    opt = sign_descent(w, lr=1.0, beta=0.9, cautious=True, mask=mask)
    opt.step(np.array([1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(w != 0, mask)
    np.testing.assert_array_equal(opt.state["m"] != 0, mask)


def test_pickled_and_copied():
    opt = sign_descent(np.zeros(3), lr=1.0, beta=0.5)
    opt.step(np.ones(3))
    twin = pickle.loads(pickle.dumps(opt))
    twin.step(np.ones(3))
    np.testing.assert_array_equal(twin.params, -2 * np.ones(3))


def test_hyperparameters_are_checked():
    opt = sign_descent(np.zeros(3), lr=1.0, beta=0.5)
    with refused(ValueError, "beta", "[0, 1)", "1.5", opt=opt):
        opt.param_groups[0]["beta"] = 1.5
    with pytest.raises(TypeError, match="missing a required argument: 'beta'"):
        sign_descent(np.zeros(3), lr=1.0)
    with pytest.raises(TypeError, match="no argument 'gamma'"):
        sign_descent(np.zeros(3), lr=1.0, beta=0.5, gamma=2.0)


def one_literal(theta, g, lr):
    return theta - 0.5 * lr * g


def a_branch(theta, g, lr):
    if g > lr:
        return theta - lr
    return theta + lr


def a_choice(theta, g, lr):
    return theta - (lr if g > lr else g)


def a_loop(theta, g, lr):
    while theta > lr:
        theta = theta - lr
    return theta


def one_value_too_many(theta, g, lr):
    return theta - lr * g, g


def nothing(theta, g, lr):
    theta = theta - lr * g


def of_numpy_alone(theta, g, lr):
    return theta - lr * np.convolve(g, g)


@pytest.mark.parametrize("decorator", [fastopt.rule, fastopt.rule(state="m")])
def test_a_rule_is_a_function(decorator):
    with pytest.raises(TypeError, match="a rule must be a Python function, got 3"):
        decorator(3)


@pytest.mark.parametrize("function", [a_branch, a_choice, a_loop], ids=lambda f: f.__name__)
def test_a_branch_is_refused_at_definition(function):
    with pytest.raises(TypeError, match=rf"the rule {function.__name__} branches in line \d+.*np\.where"):
        fastopt.rule(hyper="lr")(function)
    with pytest.raises(TypeError, match="branches"):
        fastopt.rule(function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (one_literal, ("one_literal returned float64 where it was given float32", "literal", "half")),
        (one_value_too_many, ("one_value_too_many returned 2 values where theta and 0 states are stored",)),
        (nothing, ("nothing returned none",)),
        (of_numpy_alone, ("Numba can't compile the rule of_numpy_alone",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_rule_returns_is_told_at_first_use(function, words):
    opt = fastopt.rule(hyper="lr")(function)(np.ones(3, np.float32), lr=0.1)
    for use in (opt.warmup, lambda: opt.step(np.ones(3, np.float32))):
        with pytest.raises(fastopt.RuleError) as caught:
            use()
        for word in words:
            assert word in str(caught.value)
    assert opt.step_count == 0
    np.testing.assert_array_equal(opt.params, np.ones(3))


DEFINITIONS = [
    (lambda theta, lr, g: theta, {}, TypeError, "theta, g and lr first"),
    (lambda theta, g, lr, v: theta, {"state": "m"}, TypeError, "states m after lr, got v"),
    (lambda theta, g, lr, m: theta, {"state": "m v"}, TypeError, "states m, v after lr, got m"),
    (lambda theta, g, lr, gamma: theta, {}, TypeError, "'gamma'.*neither a state.*nor a hyper-parameter"),
    (lambda theta, g, lr, mask: theta, {"hyper": "lr mask"}, ValueError, "'mask'"),
    (lambda theta, g, lr: theta, {"hyper": "beta"}, TypeError, "hyper-parameter lr"),
    (lambda theta, g, lr: theta, {"hyper": "lr lr"}, ValueError, "twice"),
    (lambda theta, g, lr: theta, {"hyper": "lr 2x"}, ValueError, "'2x'"),
    (lambda theta, g, lr, beta=0.9: theta, {"hyper": "lr beta"}, TypeError, "default"),
    (lambda theta, g, *lr: theta, {}, TypeError, "'lr' otherwise"),
    (np.sign, {}, TypeError, "Python function"),
]


@pytest.mark.parametrize(("function", "arguments", "error", "message"), DEFINITIONS)
def test_definitions_that_are_refused(function, arguments, error, message):
    with pytest.raises(error, match=message):
        fastopt.rule(**arguments)(function)


def test_a_coefficient_that_is_not_given_is_told():
    opt = fastopt.rule(coefficients=lambda hyper, t: {})(lambda theta, g, lr, share: theta - lr * share * g)(np.ones(2), lr=1.0)
    with pytest.raises(TypeError, match="no 'share'"):
        opt.step(np.ones(2))
    assert opt.step_count == 0


SESSION = """
import numpy as np, fastopt
@fastopt.rule(state="m", hyper="lr beta")
def signum(theta, g, lr, m, beta, one_minus_beta):
    m = beta * m + one_minus_beta * g
    return theta - lr * np.sign(m), m

w = np.ones(200_000, np.float32)
opt = signum(w, lr=0.5, beta=0.9)
opt.step(np.ones_like(w))
print(w[0], w[-1])
"""


def test_a_rule_in_an_interactive_session(capsys):
    console = code.InteractiveConsole({"__name__": "__main__"})
    for line in SESSION.splitlines():
        console.push(line)
    assert capsys.readouterr().out.split() == ["0.5", "0.5"]


def test_a_rule_that_has_no_file(tmp_path):
    for _ in range(2):  # compiled, then from the cache
        done = subprocess.run(
            [sys.executable, "-"],
            input=SESSION,
            cwd=tmp_path,
            env=fresh.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["0.5", "0.5"]
        assert done.stderr == ""


def test_a_plain_rule_stays_a_function():
    def descent(theta, g, lr):
        return theta - lr * g

    assert fastopt.rule(descent) is descent
    assert callable(lion.lion)
