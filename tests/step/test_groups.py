"""Parameter groups in PyTorch's form, and hyper-parameters that change at any time."""

import itertools
import math
from collections.abc import MutableMapping

import numpy as np
import pytest

import fastopt
from fastopt.arrays.tree import leaves, map_leaves
from fastopt.description.options import DEFAULTS
from fastopt.optimizers import adagrad, adam, rmsprop, sgd
from tests.refusal import refused
from tests.table import ELEMENTWISE, assert_same_bits, every_dtype

# What a group may have of its own, by the name of the hyper-parameter.
OWN_NUMBERS = {"lr": 0.03, "betas": (0.7, 0.8), "eps": 1e-3, "eps_root": 1e-5, "momentum": 0.7, "rho": 0.7, "weight_decay": 0.1}


def gradient(step, size=4, dtype=np.float64):
    return np.cos(np.arange(size) + step).astype(dtype)


@pytest.mark.wide
@pytest.mark.parametrize("row", {row.compiled_rule: row for row in ELEMENTWISE}.values(), ids=str)
@every_dtype
def test_each_group_is_as_an_optimizer_of_its_own(row, dtype):
    has = row.make(np.ones(1)).param_groups[0]
    numbers = {key: value for key, value in OWN_NUMBERS.items() if has.get(key)}
    numbers |= {"betas": (0.7, 0.8, 0.6)[: len(has["betas"])]} if "betas" in has else {}
    one, two, three = (np.ones(4, dtype) for _ in range(3))
    alike = [array.copy() for array in (one, two, three)]
    opt = row.make([{"params": [one]}, {"params": {"x": two}, **numbers}, {"params": three, "lr": 0.5}])
    singles = [row.make(alike[0]), row.make(alike[1], **numbers), row.make(alike[2], lr=0.5)]
    for step in range(3):
        g = [gradient(step + i, 4, dtype) for i in range(3)]
        opt.step([[g[0]], {"x": g[1]}, g[2]])
        for single, own in zip(singles, g, strict=True):
            single.step(own)
    for array, expected in zip((one, two, three), alike, strict=True):
        assert_same_bits(array, expected)
    for name in row.states:
        first, second, third = opt.state[name]
        for state, single in zip((first[0], second["x"], third), singles, strict=True):
            assert_same_bits(state, single.state[name])


def test_defaults_and_overrides():
    w, b = np.ones(3), np.ones(2)
    schedule = lambda step: 0.5  # noqa: E731
    opt = fastopt.SGD(({"params": [w]}, {"params": [b], "lr": schedule, "dampening": 0.5}), lr=0.1, momentum=0.9)
    first, second = opt.param_groups
    common = {"momentum": 0.9, "nesterov": False, "accumulate_lr": False} | DEFAULTS
    assert dict(first) == {"params": [w], "lr": 0.1, "dampening": 0.0, **common}
    assert dict(second) == {"params": [b], "lr": schedule, "dampening": 0.5, **common}
    assert opt.params == [[w], [b]]
    assert opt.params[1][0] is b


def test_given_groups_are_only_read():
    given = [{"params": [np.ones(3)], "lr": 0.1}, {"params": [np.ones(2)]}]
    opt = fastopt.SGD(given, lr=0.2)
    opt.param_groups[0]["lr"] = 0.3
    assert [list(group) for group in given] == [["params", "lr"], ["params"]]
    assert given[0]["lr"] == 0.1
    given[0]["lr"] = 7.0
    assert [group["lr"] for group in opt.param_groups] == [0.3, 0.2]


def test_without_groups_there_is_one():
    w = np.ones(3)
    (group,) = fastopt.Adam(w, lr=0.1).param_groups
    assert group["params"] is w
    params = {"params": w}  # a dict alone is no list of groups
    opt = fastopt.Adam(params)
    opt.step({"params": np.ones(3)})
    assert opt.params["params"] is w


def test_a_group_may_be_empty():
    w = np.ones(3)
    opt = fastopt.SGD([{"params": []}, {"params": w}], lr=1.0, momentum=0.9)
    opt.step([[], np.ones(3)])
    np.testing.assert_equal([opt.params, opt.state["p"]], [[[], np.zeros(3)], [[], np.ones(3)]])


def test_group_is_a_mapping():
    opt = fastopt.Adam(np.ones(3), lr=0.1)
    group = opt.param_groups[0]
    assert isinstance(group, MutableMapping)
    assert list(group)[:4] == ["params", "lr", "betas", "eps"]
    assert len(group) == len(list(group))
    assert "lr" in group
    assert "momentum" not in group
    assert group.get("momentum", 3) == 3
    assert {**group}.keys() == group.keys()
    assert group.setdefault("lr", 5.0) == 0.1
    group.update({"lr": 0.2}, eps=1e-4)
    group["betas"] = [0.5, np.float32(0.25)]
    assert (group["lr"], group["eps"], group["betas"]) == (0.2, 1e-4, (0.5, 0.25))
    assert opt.lr == 0.2
    assert len(opt.param_groups) == 1


def test_unknown_and_removed_keys_are_refused():
    with refused(TypeError, "group 1", "'beta'", "lr, betas, eps"):
        fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(3), "beta": 0.9}])
    opt = fastopt.Adam(np.ones(3))
    opt.step(np.ones(3))
    group = opt.param_groups[0]
    for key in ("beta", "params", 0):
        with refused(TypeError, repr(key), "lr, betas, eps", opt=opt):
            group[key] = 0.9
    with refused(TypeError, "'lr'", "not removed", opt=opt):
        del group["lr"]
    with refused(TypeError, "not removed", opt=opt):
        group.clear()
    with refused(TypeError, "'eps'", "not removed", opt=opt):
        group.pop("eps")
    with refused(KeyError, "beta", opt=opt):
        group["beta"]


def test_update_of_a_group_is_checked_as_a_whole():
    opt = fastopt.SGD([{"params": np.ones(3)}], lr=0.1, momentum=0.9, nesterov=True)
    with refused(ValueError, "momentum must be", opt=opt):
        opt.param_groups[0].update(lr=0.5, momentum=-1.0)
    with refused(TypeError, "'beta'", opt=opt):
        opt.param_groups[0].update({"lr": 0.5, "beta": 1.0})
    opt.param_groups[0].update(momentum=0.0, nesterov=False)  # momentum alone would contradict nesterov
    opt.step([np.ones(3)])


def test_rate_that_one_group_refuses_changes_none():
    opt = fastopt.SGD([{"params": np.ones(3), "lr": 0.1}, {"params": np.ones(4), "lr": 0.2}])
    with refused(ValueError, "lr ", "(4,)", "got (3,)", opt=opt):
        opt.lr = np.ones(3)
    for bad, error in [(-1.0, ValueError), (math.nan, ValueError), ("0.1", TypeError), (True, TypeError)]:
        with refused(error, "lr must be", opt=opt):
            opt.lr = bad


def test_rate_that_is_zero_in_the_dtype_of_one_group_changes_none():
    opt = fastopt.SGD([{"params": np.ones(3), "lr": 0.1}, {"params": np.ones(4, np.float32), "lr": 0.2}])
    with refused(ValueError, "lr must be within the range of float32", opt=opt):
        opt.lr = 1e-60


def test_the_last_one_of_rates_that_were_assigned_counts():
    opt = fastopt.SGD([{"params": (w := np.zeros(2))}, {"params": (v := np.zeros(1))}])
    opt.step([np.ones(2), np.ones(1)], lr=0.0)
    opt.lr = 0.5
    opt.lr = 1.0
    opt.param_groups[0]["lr"] = np.array([0.25, 0.125])  # whose step takes an array, not the number before it
    opt.step([np.ones(2), np.ones(1)])
    opt.param_groups[0]["lr"] = 2.0
    opt.param_groups[1]["lr"] = 4
    opt.step([np.ones(2), np.ones(1)])
    np.testing.assert_array_equal(w, [-2.25, -2.125])
    np.testing.assert_array_equal(v, [-5.0])


def test_rate_of_all_groups_at_once():
    opt = fastopt.SGD([{"params": np.ones(3), "lr": 0.1}, {"params": np.ones(3)}], lr=0.1)
    assert opt.lr == 0.1
    opt.lr = 0.5
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.5]
    opt.lr = rates = np.array([0.1, 0.2, 0.3])
    for group in opt.param_groups:
        np.testing.assert_array_equal(group["lr"], rates)
    np.testing.assert_array_equal(opt.lr, rates)


def rates_like(params, start):
    """Rates in the form of some parameters, all of them different."""
    numbers = itertools.count(start)
    return map_leaves(lambda leaf: np.reshape([next(numbers) / 64 for _ in range(leaf.size)], leaf.shape), params)


@pytest.mark.parametrize(
    "params",
    [
        np.zeros(3),
        np.zeros((2, 3), order="F"),
        np.zeros((0, 2)),
        {"W": np.zeros((3, 2)), "b": [np.zeros(2)]},
        np.zeros(3, np.complex128),
    ],
    ids=["vector", "Fortran order", "empty", "nested", "complex"],
)
def test_rates_are_written_where_those_before_them_were(params):
    opt = fastopt.SGD(params, lr=rates_like(params, 1))
    g = map_leaves(np.ones_like, params)
    opt.step(g)
    held = opt.lr
    for start in (5, 9):
        opt.lr = rates_like(params, start)
        assert opt.lr is held
        before = map_leaves(np.copy, params)
        opt.step(g)
        for (_, now), (_, old), (_, rates) in zip(
            *(leaves(t, "") for t in (params, before, rates_like(params, start))), strict=True
        ):
            np.testing.assert_array_equal(now, old - rates)
    assert all(not leaf.flags.writeable and not leaf.base.flags.writeable for _, leaf in leaves(held, ""))


def test_rates_of_flat_arrays_are_written_too():
    flat = fastopt.flatten([np.zeros(2), np.zeros((1, 2))])
    rates = flat.like()
    rates.buffer[:] = [1.0, 2.0, 3.0, 4.0]
    opt = fastopt.SGD(flat, lr=rates)
    held = opt.lr
    rates.buffer[:] *= 2.0
    opt.lr = rates
    opt.step(flat.like())
    assert opt.lr is held
    np.testing.assert_array_equal(held[1], [[6.0, 8.0]])


def test_rates_may_be_assigned_from_the_optimizers_own():
    opt = fastopt.SGD([np.zeros(2), np.zeros(2)], lr=[np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    opt.lr = [opt.lr[1], opt.lr[0][::-1]]
    opt.step([np.ones(2), np.ones(2)])
    np.testing.assert_array_equal(opt.lr, [[3.0, 4.0], [2.0, 1.0]])
    one = fastopt.SGD(np.zeros(3), lr=np.array([1.0, 2.0, 3.0]))
    one.lr = one.lr[::-1]
    np.testing.assert_array_equal(one.lr, [3.0, 2.0, 1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [-1.0, -1e-300, np.nan, -np.nan, np.inf, -np.inf])
def test_wrong_rates_are_refused_before_any_was_written(dtype, bad):
    shape = np.zeros(3, dtype)
    opt = fastopt.SGD([{"params": shape.copy()}, {"params": [shape.copy()]}], lr=0.5)
    opt.param_groups[0]["lr"], opt.param_groups[1]["lr"] = np.ones(3, dtype), [np.ones(3, dtype)]
    wrong = np.array([2.0, 2.0, bad if dtype is np.float64 else np.float32(bad) or -1.0], dtype)
    with refused(ValueError, "lr must hold finite numbers of at least 0", opt=opt):
        opt.param_groups[0]["lr"] = wrong
    with refused(ValueError, "lr[0] must hold finite numbers of at least 0", opt=opt):
        opt.param_groups[1]["lr"] = [wrong]
    opt.param_groups[0]["lr"] = np.array([-0.0, 0.0, 3.0], dtype)  # which is 0
    np.testing.assert_array_equal(opt.param_groups[0]["lr"], [0.0, 0.0, 3.0])


@pytest.mark.parametrize("new", [0.5, np.full(3, 0.5), lambda step: 0.5], ids=["number", "array", "schedule"])
@pytest.mark.parametrize("old", [0.25, np.full(3, 0.25), lambda step: 0.25], ids=["number", "array", "schedule"])
def test_a_step_that_fails_leaves_the_rate_as_it_was(old, new):
    opt = fastopt.SGD(w := np.ones(3), lr=old)
    with refused(ValueError, "grads must have the shape", opt=opt):
        opt.step(np.ones(4), lr=new)
    opt.step(np.ones(3))
    np.testing.assert_array_equal(w, 0.75)
    opt.step(np.ones(3), lr=new)
    np.testing.assert_array_equal(w, 0.25)


@pytest.mark.parametrize("other", [0.2, np.ones(4), lambda step: 0.1], ids=["number", "array", "schedule"])
@pytest.mark.parametrize(
    "one", [0.1, np.ones(3), np.ones(1), np.ones(0), lambda step: 0.1], ids=["number", "array", "of 1", "of 0", "schedule"]
)
def test_reading_the_rate_of_groups_that_differ_is_refused(one, other):
    shape = one.shape if isinstance(one, np.ndarray) else 3
    opt = fastopt.SGD([{"params": np.ones(shape), "lr": one}, {"params": np.ones(4), "lr": other}])
    with refused(ValueError, "different values of lr", "param_groups[i]['lr']", opt=opt):
        opt.lr  # noqa: B018


def test_schedules_of_groups():
    calls = []
    opt = fastopt.SGD(
        [{"params": np.zeros(2)}, {"params": np.zeros(2), "lr": 1.0}, {"params": np.zeros(2), "lr": lambda step: step}],
        lr=lambda step: calls.append(step) or 0.5,
    )
    for _ in range(3):
        opt.step([np.ones(2)] * 3)
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(opt.params, [[-1.5] * 2, [-3.0] * 2, [-3.0] * 2])


def test_groups_with_and_without_momentum():
    opt = fastopt.SGD(
        [{"params": {"a": np.zeros(2)}}, {"params": [np.zeros(2)], "momentum": 0.5}, {"params": np.zeros(2), "momentum": 0.25}],
        lr=1.0,
    )
    for _ in range(2):
        opt.step([{"a": np.ones(2)}, [np.ones(2)], np.ones(2)])
    np.testing.assert_equal(opt.params, [{"a": np.full(2, -2.0)}, [np.full(2, -2.5)], np.full(2, -2.25)])
    np.testing.assert_equal(dict(opt.state), {"p": [None, [np.full(2, 1.5)], np.full(2, 1.25)]})


def test_groups_that_accumulate_differently():
    opt = fastopt.AdaGrad([{"params": np.zeros(2)}, {"params": np.zeros(2), "accumulate": "rates"}], lr=1.0, eps=1.0)
    opt.step([np.full(2, 3.0), np.full(2, 3.0)])
    np.testing.assert_equal(dict(opt.state), {"r": [np.full(2, 9.0), None], "alpha": [None, np.full(2, 0.25)]})
    np.testing.assert_equal(opt.params, [np.full(2, -0.75), np.full(2, -0.75)])


def test_what_needs_a_state_that_was_not_allocated_is_refused():
    opt = fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(3), "momentum": 0.9}])
    opt.step([np.ones(3), np.ones(3)])
    with refused(ValueError, "momentum=0.9", "needs the state 'p'", "constructed without", opt=opt):
        opt.param_groups[0]["momentum"] = 0.9
    for cls, given, other, state in [
        (fastopt.AdaGrad, "squares", "rates", "alpha"),
        (fastopt.AdaGrad, "rates", "squares", "r"),
        (fastopt.RMSProp, "squares", "rates", "alpha"),
        (fastopt.RMSProp, "rates", "squares", "v"),
    ]:
        opt = cls(np.ones(3), accumulate=given)
        opt.step(np.ones(3))
        with refused(ValueError, f"accumulate={other!r}", f"needs the state {state!r}", opt=opt):
            opt.param_groups[0]["accumulate"] = other


CHANGES = [
    (fastopt.SGD, sgd.momentum, {"momentum": 0.9}, [{"lr": 0.3}, {"momentum": 0.5}, {"dampening": 0.25}, {"dampening": -1.0}]),
    (fastopt.SGD, sgd.momentum, {"momentum": 0.9, "dampening": 0.5}, [{}, {"dampening": 0.0}, {"lr": 0.0}, {"lr": 0.5}]),
    (fastopt.AdaGrad, adagrad.adagrad, {}, [{"eps": 0.5}, {"lr": 0.3}, {"eps": 0.0}]),
    (fastopt.AdaGrad, adagrad.adagrad_rates, {"accumulate": "rates"}, [{"eps": 0.5}, {"lr": 0.3}, {"accumulate": "rates"}]),
    (fastopt.RMSProp, rmsprop.rmsprop, {}, [{"rho": 0.5}, {"eps": 0.5}, {"rho": 0.0}, {"lr": 0.3}]),
    (fastopt.RMSProp, rmsprop.rmsprop_rates, {"accumulate": "rates"}, [{"rho": 0.5}, {"eps": 0.5}, {"lr": 0.3}]),
    (fastopt.Adam, adam.adam, {}, [{"betas": (0.5, 0.5)}, {"eps": 0.1}, {"lr": 0.3}, {"betas": (0.0, 0.0)}]),
]


@pytest.mark.parametrize(("cls", "rule", "hyper", "changes"), CHANGES, ids=lambda value: getattr(value, "__name__", None))
@every_dtype
def test_changed_hyperparameters_hold_from_the_next_step_on(cls, rule, hyper, changes, dtype):
    w = np.ones(5, dtype)
    opt = cls([w], lr=0.1, **hyper)
    theta, states = w.copy(), [np.zeros(5, dtype) for _ in opt.state]
    now = dict(opt.param_groups[0])
    t = 0
    for change in [{}, *changes]:
        for key, value in change.items():
            opt.param_groups[0][key] = now[key] = value
        for _ in range(2):
            t += 1
            g = gradient(t, 5, dtype)
            opt.step([g])
            theta, *states = rule(theta, g, dtype(now["lr"]), *states, *map(dtype, opt.coefficients(now, t)))
    assert_same_bits(w, theta)
    for state, expected in zip(opt.state.values(), states, strict=True):
        assert_same_bits(state[0], expected)


def test_nesterov_and_momentum_switched_on_and_off():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, momentum=0.5)
    group = opt.param_groups[0]
    theta, p, g = 0.0, 0.0, 2.0
    for change in ({}, {"nesterov": True}, {"nesterov": False}, {"momentum": 0.0}, {"momentum": 0.5}, {"nesterov": True}):
        group.update(change)
        for _ in range(2):
            opt.step(np.full(2, g))
            if group["momentum"]:
                p = group["momentum"] * p + g
                theta -= g + group["momentum"] * p if group["nesterov"] else p
            else:
                theta -= g  # and the momentum waits as it is
            np.testing.assert_array_equal(w, [theta, theta])
            np.testing.assert_array_equal(opt.state["p"], [p, p])


def test_steps_count_for_all_groups():
    opt = fastopt.Adam([{"params": np.ones(2)}, {"params": np.ones(2)}])
    assert opt.step_count == 0
    for _ in range(3):
        opt.step([np.ones(2), np.ones(2)])
    assert opt.step_count == 3


@pytest.mark.parametrize(
    ("grads", "error", "words"),
    [
        ([[np.ones(2)]], ValueError, ("grads ", "length 2", "got 1")),
        ([[np.ones(2)], [np.ones(3)], []], ValueError, ("grads ", "length 2", "got 3")),
        ([np.ones(2), np.ones(3)], TypeError, ("grads[0] ", "list or tuple", "ndarray")),
        ([[np.ones(2)], [np.ones(2)]], ValueError, ("grads[1][0] ", "(3,)", "params[1]['params'][0]", "got (2,)")),
        ([{"params": [np.ones(2)]}, {"params": [np.ones(3)]}], TypeError, ("grads[0] ", "list or tuple", "dict")),
        ({0: [np.ones(2)], 1: [np.ones(3)]}, TypeError, ("grads ", "list or tuple", "dict")),
    ],
)
def test_gradients_of_other_groups_are_refused(grads, error, words):
    opt = fastopt.Adam([{"params": [np.ones(2)]}, {"params": [np.ones(3)]}])
    opt.step([[np.ones(2)], [np.ones(3)]])
    with refused(error, *words, opt=opt):
        opt.step(grads)
