"""The tables of the page "Coming from PyTorch, ...": every cell is typed in, and goes the way it promises."""

import math
import re
from itertools import count

import numpy as np
import pytest

import fastopt
from tests import fresh, oracles
from tests import keras_formulas as keras
from tests.families import classic, dialects, nesterov
from tests.peers import assert_equal_paths, formula_path, optax_path, pennylane_path, sklearn_path, torch_path

PAGE = fresh.ROOT / "docs" / "conventions.md"
LIBRARIES = ("PyTorch", "Keras 3", "optax", "book or paper")
PROGRAMS = ("scikit-learn", "PennyLane", "by hand, with `lr_t`")
LR = 0.01  # for optax, which has no default

NESTEROV = {"momentum": 0.9, "nesterov": True}


def rmsprop_of_the_book(theta, grad, lr, rho, eps):
    """Goodfellow et al., "Deep Learning", algorithm 8.5."""
    epsilon, delta, r = lr, eps, np.zeros_like(theta)
    while True:
        g = grad(theta)
        r = rho * r + (1 - rho) * g * g
        theta = theta - epsilon / np.sqrt(delta + r) * g
        yield theta


def radam_of_the_paper(theta, grad):
    """Liu et al. (2020), algorithm 2, which has no small constant."""
    return dialects.corrected_radam(theta, grad, eps=0.0, threshold=4.0)


def adam_by_hand(theta, grad, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    """As programs have it that compute one rate a step: what Kingma and Ba write before their section 2.1."""
    m = v = np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        lr_t = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        theta = theta - lr_t * m / (np.sqrt(v) + eps)
        yield theta


# What each cell promises: a name in the library and its arguments there, or a formula.
OF_LIBRARIES = {
    "gradient descent": [("SGD", {}), (keras.sgd, {}), ("sgd", {}), (oracles.gradient_descent, {})],
    "momentum": [
        ("SGD", {"momentum": 0.9}),
        (keras.sgd, {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9}),
        (oracles.momentum, {}),
    ],
    "Nesterov's momentum": [("SGD", NESTEROV), (keras.sgd, NESTEROV), ("sgd", NESTEROV), None],
    "gradient descent with weight decay": [("SGD", {"weight_decay": 0.1}), (keras.sgd, {"weight_decay": 0.1}), None, None],
    "AdaGrad": [("Adagrad", {}), (keras.adagrad, {}), ("adagrad", {}), (oracles.adagrad, {"eps": 1e-7})],
    "AdaGrad with a falling rate": [("Adagrad", {"lr_decay": 0.1}), None, None, None],
    "AdaGrad, rates summed up": [None, None, None, (oracles.adagrad_rates, {"lr": 1e-6, "eps": 1e-5})],
    "RMSProp": [
        ("RMSprop", {}),
        (keras.rmsprop, {}),
        ("rmsprop", {}),
        (rmsprop_of_the_book, {"lr": 1e-3, "rho": 0.9, "eps": 1e-6}),
    ],
    "RMSProp with momentum": [
        ("RMSprop", {"momentum": 0.9}),
        (keras.rmsprop, {"momentum": 0.9}),
        ("rmsprop", {"momentum": 0.9}),
        None,
    ],
    "RMSProp, centered": [
        ("RMSprop", {"centered": True}),
        (keras.rmsprop, {"centered": True}),
        ("rmsprop", {"centered": True}),
        None,
    ],
    "RMSProp, rates averaged": [None, None, None, (oracles.rmsprop_rates, {"lr": 1e-3, "rho": 0.9, "eps": 1e-5})],
    "Adam": [("Adam", {}), (keras.adam, {}), ("adam", {}), (oracles.adam, {})],
    "Adam with weight decay": [("Adam", {"weight_decay": 0.1}), (keras.adam, {"weight_decay": 0.1}), None, None],
    "AdamW": [("AdamW", {}), (keras.adam, {"weight_decay": 4e-3}), ("adamw", {}), (oracles.adamw, {})],
    "AMSGrad": [
        ("Adam", {"amsgrad": True}),
        (keras.adam, {"amsgrad": True}),
        ("amsgrad", {}),
        (dialects.published_amsgrad, {}),
    ],
    "AdaMax": [("Adamax", {}), (keras.adamax, {}), ("adamax", {}), (oracles.adamax, {"eps": 0.0})],
    "NAdam": [("NAdam", {}), (keras.nadam, {}), ("nadam", {}), (nesterov.nadam_oracle, {})],
    "RAdam": [("RAdam", {}), None, ("radam", {}), (radam_of_the_paper, {})],
    "AdaDelta": [("Adadelta", {}), (keras.adadelta, {}), ("adadelta", {}), (oracles.adadelta, {"rho": 0.95})],
    "Lion": [None, (keras.lion, {}), ("lion", {}), (oracles.lion, {})],
    "LAMB": [None, (keras.lamb, {}), ("lamb", {}), None],
    "FTRL": [None, (keras.ftrl, {}), None, (classic.ftrl_oracle, {})],
    "Rprop": [("Rprop", {}), None, None, None],
    "ASGD": [("ASGD", {}), None, None, None],
    "Yogi": [None, None, ("yogi", {}), (nesterov.yogi_oracle, {})],
    "AdaBelief": [None, None, ("adabelief", {}), (oracles.adabelief, {})],
}


OF_PROGRAMS = {
    "gradient descent": [("SGD", {"momentum": 0, "nesterov": False}), ("GradientDescentOptimizer", {}), None],
    "momentum": [("SGD", {"nesterov": False}), ("MomentumOptimizer", {}), None],
    "Nesterov's momentum": [("SGD", {}), None, None],
    "AdaGrad": [None, ("AdagradOptimizer", {}), None],
    "RMSProp": [None, ("RMSPropOptimizer", {}), None],
    "Adam": [("Adam", {}), ("AdamOptimizer", {}), (adam_by_hand, {})],
}


def tables():
    """What the page has in each table, by its columns, row by row: a call for each column, or None."""
    found = re.findall(r"^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for head, body in found:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        calls = {name: [cell.strip("`") or None for cell in cells] for name, *cells in rows}
        yield tuple(cell.strip() for cell in head.split("|")[1:]), calls


CALLS = dict(tables())
PROMISES = {LIBRARIES: OF_LIBRARIES, PROGRAMS: OF_PROGRAMS}
CELLS = {
    f"{name}-{column}": (column, call, PROMISES[columns][name][i])
    for columns, rows in CALLS.items()
    for name, calls in rows.items()
    for i, (column, call) in enumerate(zip(columns, calls, strict=True))
    if call
}


def optimizer_of(call, **more):
    """What makes the optimizer that a cell names."""
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", call).groups()
    keywords = eval(f"dict({arguments})", {"dict": dict, "math": math})
    return lambda params: getattr(fastopt, name)(params, **more, **keywords)


def test_each_cell_promises_something():
    assert CALLS.keys() == PROMISES.keys()
    for columns, rows in CALLS.items():
        filled = {name: [bool(call) for call in calls] for name, calls in rows.items()}
        assert filled == {name: [bool(each) for each in promises] for name, promises in PROMISES[columns].items()}
    assert len(CELLS) > 70


@pytest.mark.peers
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_keeps_its_promise(cell, torch, optax):
    library, call, (target, arguments) = CELLS[cell]
    if library == "PyTorch":
        assert_equal_paths(optimizer_of(call), torch_path(torch, target, arguments))
    elif library == "optax":
        lr = {} if "lr=" in call else {"lr": LR}
        assert_equal_paths(optimizer_of(call, **lr), optax_path(optax, target, {"learning_rate": LR, **arguments}))
    elif library == "scikit-learn":
        # As MLPClassifier makes them.
        assert_equal_paths(optimizer_of(call), sklearn_path(target, {"learning_rate_init": 1e-3, **arguments}))
    elif library == "PennyLane":
        assert_equal_paths(optimizer_of(call), pennylane_path(target, arguments))
    else:
        assert_equal_paths(optimizer_of(call), formula_path(target, arguments))


def test_momentum_of_steps_and_of_gradients_part_when_the_rate_changes():
    # Keras: v = beta v - lr g. PyTorch: p = beta p + g, and a step of lr p.
    steps, gradients = np.zeros(1), np.zeros(1)
    of_steps = fastopt.SGD(steps, lr=1.0, momentum=0.5, accumulate_lr=True)
    of_gradients = fastopt.SGD(gradients, lr=1.0, momentum=0.5)
    for lr in (1.0, 0.25):
        of_steps.lr = of_gradients.lr = lr
        of_steps.step(np.ones(1))
        of_gradients.step(np.ones(1))
    assert steps == -1 - (0.5 + 0.25)
    assert gradients == -1 - 0.25 * 1.5


REFUSED = [
    (fastopt.AdaGrad, {"eps_inside_sqrt": True, "accumulate": "rates"}, "eps_inside_sqrt=True needs accumulate='squares'"),
    (fastopt.RMSProp, {"eps_inside_sqrt": True, "accumulate": "rates"}, "eps_inside_sqrt=True needs accumulate='squares'"),
    (fastopt.RMSProp, {"momentum": 0.9, "accumulate": "rates"}, "momentum and centered need accumulate='squares'"),
    (fastopt.RMSProp, {"centered": True, "accumulate": "rates"}, "momentum and centered need accumulate='squares'"),
    (fastopt.Adam, {"amsgrad": True, "eps_hat": True, "amsgrad_of": "v_hat"}, "eps_hat=True needs amsgrad_of='v'"),
    (fastopt.RAdam, {"threshold": 3.9}, "threshold must be finite and at least 4, got 3.9"),
    (fastopt.ScheduleFreeSGD, {"momentum": 0.0}, r"momentum must be above 0, got 0\.0"),
    (fastopt.ScheduleFreeAdamW, {"betas": (0.0, 0.9)}, r"betas\[0\] must be above 0"),
    (fastopt.ScheduleFreeSGD, {"cautious": True}, "cautious=True is not for schedule-free"),
    (fastopt.ScheduleFreeSGD, {"decoupled_weight_decay": True}, "decoupled_weight_decay=True is not for schedule-free"),
    (fastopt.ScheduleFreeAdamW, {"cautious": True}, "cautious=True is not for schedule-free"),
]


@pytest.mark.parametrize(("optimizer", "arguments", "message"), REFUSED, ids=str)
def test_what_contradicts_itself_is_refused(optimizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        optimizer(np.zeros(3), **arguments)
    w = np.zeros(3)
    opt = optimizer(w)
    before = dict(opt.param_groups[0].hyper)
    with pytest.raises(ValueError, match=message):
        opt.param_groups[0].update(arguments)
    assert opt.param_groups[0].hyper == before
    opt.step(np.ones(3))
    assert np.all(w < 0)
