"""Going on with the same bits: state dicts, copies and pickles; and state dicts that are refused."""

import copy
import io
import json
import pickle

import numpy as np
import pytest

import fastopt
from fastopt.arrays.tree import leaves, map_leaves
from tests.refusal import refused
from tests.table import TABLE, assert_same_bits, every_dtype, every_row


def halving(step):
    return 0.5**step


def through_pickle(blob):
    return pickle.loads(pickle.dumps(blob))


def through_npz(saved):
    """The arrays through an .npz file, all else through JSON."""
    names = [(state, name) for state, arrays in saved["state"].items() for name in arrays]
    file = io.BytesIO()
    np.savez(file, **{f"{state}/{name}": saved["state"][state][name] for state, name in names})
    file.seek(0)
    loaded = json.loads(json.dumps({key: value for key, value in saved.items() if key != "state"}))
    with np.load(file) as arrays:
        loaded["state"] = {state: {} for state in saved["state"]}
        for state, name in names:
            loaded["state"][state][name] = arrays[f"{state}/{name}"]
    return loaded


STRUCTURES = {
    "array": lambda dtype: np.linspace(-1, 1, 7).astype(dtype),
    "large": lambda dtype: np.linspace(-1, 1, 150_000).astype(dtype),
    "Fortran": lambda dtype: np.linspace(-1, 1, 6).astype(dtype).reshape((2, 3), order="F"),
    "nested": lambda dtype: {"W": [np.ones((2, 3), dtype), np.ones((), dtype)], "b": (np.ones(0, dtype), np.ones(4))},
    "flat": lambda dtype: fastopt.flatten({"W": np.ones((2, 3), dtype, order="F"), "b": np.ones(4, dtype)}),
    "groups": lambda dtype: [{"params": [np.ones((2, 3), dtype)], "lr": 0.25}, {"params": {"b": np.ones(4, dtype)}}],
}
every_structure = pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
every_copy = pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, through_pickle], ids=["copy.copy", "copy.deepcopy", "pickle"]
)


def arrays(tree):
    return [getattr(leaf, "buffer", leaf) for _, leaf in leaves(tree, "") if leaf is not None]


def run(opt, steps):
    """Take steps whose gradients depend on the step, so that a wrong step counter shows."""
    for _ in range(steps):

        def gradient(w):
            if isinstance(w, fastopt.Flat):
                grads = w.like()
                grads.buffer[:] = gradient(w.buffer)
                return grads
            return np.cos(np.arange(w.size).reshape(w.shape) + opt.step_count).astype(w.dtype)

        opt.step(map_leaves(gradient, opt.params))


def assert_same_run(one, other):
    assert one.step_count == other.step_count
    assert list(one.state) == list(other.state)
    for tree, expected in [(one.params, other.params), *((one.state[name], other.state[name]) for name in one.state)]:
        for actual, array in zip(arrays(tree), arrays(expected), strict=True):
            assert_same_bits(actual, array)


@pytest.mark.wide(by=lambda row, dtype, make: (row.rule, dtype, make))
@every_row
@every_dtype
@every_structure
def test_resume_in_the_middle_gives_the_same_bits(row, dtype, make):
    opt = row.make(make(dtype))
    run(opt, 4)
    blob = opt.state_dict()
    params = copy.deepcopy([dict(group)["params"] for group in opt.param_groups])
    resumed = row.make([{"params": tree} for tree in params] if isinstance(opt.params, list) else params[0], lr=7.0)
    run(opt, 4)
    for transported in (blob, through_pickle(blob), through_npz(blob)):
        resumed.load_state_dict(transported)
        assert resumed.step_count == 4
        assert resumed.state_dict()["groups"] == blob["groups"]
    run(resumed, 4)
    assert_same_run(resumed, opt)


def plain(value):
    """Whether a value is made of Python's own types, and of arrays with memory of their own."""
    if type(value) is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool) or (type(value) is np.ndarray and value.base is None)


@every_structure
def test_state_dict_holds_plain_copies(make):
    opt = fastopt.Adam(make(np.float32))
    run(opt, 2)
    blob = opt.state_dict()
    assert plain(blob)
    assert list(blob) == ["version", "optimizer", "step_count", "whole", "groups", "progress", "state"]
    before = copy.deepcopy(blob)
    run(opt, 2)
    opt.lr = 7.0
    np.testing.assert_equal(blob, before)
    for state in blob["state"].values():
        for array in state.values():
            array[...] = np.nan
    blob["groups"][0]["lr"] = blob["step_count"] = -1.0
    assert not any(np.isnan(array).any() for tree in opt.state.values() for array in arrays(tree))
    assert (opt.step_count, opt.lr) == (4, 7.0)


def test_loaded_values_are_copied():
    one, other = fastopt.Adam(np.ones(3)), fastopt.Adam(np.ones(3))
    run(one, 2)
    blob = one.state_dict()
    other.load_state_dict(blob)
    blob["state"]["m"]["params"][...] = np.nan
    assert_same_bits(other.state["m"], one.state["m"])


def test_rates_are_saved():
    for params, lr in [
        (np.ones(3), np.array([0.5, 0.25, 0.125])),
        ({"a": np.ones((2, 2), order="F")}, {"a": np.array([[1.0, 2.0], [3.0, 4.0]])}),
        (fastopt.flatten([np.ones(2), np.ones(1)]), np.array([0.5, 0.25, 0.125])),
    ]:
        opt = fastopt.SGD(copy.deepcopy(params), lr=lr, momentum=0.9)
        run(opt, 2)
        blob = opt.state_dict()
        assert plain(blob)
        resumed = fastopt.SGD(copy.deepcopy(opt.params), momentum=0.9)
        resumed.load_state_dict(through_pickle(blob))
        np.testing.assert_equal(arrays(resumed.lr), arrays(opt.lr))
        run(opt, 2)
        run(resumed, 2)
        assert_same_run(resumed, opt)
    blob["groups"][0]["lr"] = 0.5  # and a number replaces an array
    resumed.load_state_dict(blob)
    assert resumed.lr == 0.5


def test_memory_order_may_differ():
    values = np.arange(6.0).reshape(2, 3)
    one, other = fastopt.SGD(values.copy(), momentum=0.9), fastopt.SGD(values.copy("F"), momentum=0.9)
    one.step(values)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(other.state["p"], values)


def test_schedules_are_left_out_and_kept():
    opt = fastopt.Adam([{"params": np.ones(3), "lr": halving}, {"params": np.ones(3), "lr": 0.25}])
    run(opt, 3)
    blob = opt.state_dict()
    assert ["lr" in group for group in blob["groups"]] == [False, True]
    resumed = fastopt.Adam([{"params": group["params"].copy(), "lr": halving} for group in opt.param_groups])
    resumed.load_state_dict(through_pickle(blob))
    assert [group["lr"] for group in resumed.param_groups] == [halving, halving]  # not the number that was saved


@pytest.mark.parametrize("scheduled", [True, False])
def test_what_follows_a_schedule_there_or_here_stays_as_it_is_here(scheduled):
    def make(lr, eps):
        return fastopt.Adam([{"params": np.ones(3), "lr": lr}, {"params": np.ones(3), "eps": eps}], lr=0.25)

    values = [(halving, lambda step: 0.1), (0.5, 0.2)]
    saved, own = make(*values[scheduled]), make(*values[not scheduled])
    run(saved, 2)
    own.load_state_dict(through_pickle(saved.state_dict()))
    assert [own.param_groups[0]["lr"], own.param_groups[1]["eps"]] == [*values[not scheduled]]
    assert (own.param_groups[1]["lr"], own.step_count) == (0.25, 2)
    assert_same_bits(own.state["v"][1], saved.state["v"][1])
    run(own, 1)


def of_two_groups():
    opt = fastopt.Adam([{"params": {"W": np.ones((2, 3)), "b": np.ones(3, np.float32)}}, {"params": [np.ones(2)], "lr": 0.5}])
    run(opt, 3)
    return opt


ABSENT = "ABSENT"
W, LAST = "params[0]['params']['W']", "params[1]['params'][0]"
DAMAGE = [
    *((path, ABSENT, ValueError) for path in [("version",), ("optimizer",), ("step_count",), ("groups",), ("state",)]),
    *((("groups", 1, key), ABSENT, ValueError) for key in ("lr", "betas", "eps")),
    *(((*path, "extra"), 1.0, ValueError) for path in [(), ("groups", 1), ("state",), ("state", "v")]),
    *((("version",), value, ValueError) for value in (2, 0, "1", None, np.array([1, 2]))),
    *((("optimizer",), value, ValueError) for value in ("SGD", "adam", None, 3, np.array(["Adam", "SGD"]))),
    (("step_count",), -1, ValueError),
    *((("step_count",), value, TypeError) for value in (3.0, "3", None, True, [3], np.ones(2, int))),
    *((("groups",), value, TypeError) for value in (None, {}, 1.0, "ab")),
    *((("groups",), value, ValueError) for value in ([], [{}], [{}] * 3)),
    *((("groups", 1), value, TypeError) for value in (None, [], 1.0)),
    (("groups", 1, "lr"), -1.0, ValueError),
    (("groups", 1, "lr"), "0.1", TypeError),
    (("groups", 1, "lr"), [np.ones(3)], ValueError),
    (("groups", 1, "betas"), (0.9, 1.0), ValueError),
    (("groups", 1, "betas"), 0.9, TypeError),
    (("groups", 1, "eps"), np.nan, ValueError),
    *((("state",), value, TypeError) for value in (None, [], np.ones(3))),
    (("state",), {}, ValueError),
    *((("state", "v"), value, error) for value, error in [(ABSENT, ValueError), ({}, ValueError), (None, TypeError)]),
    *((("state", "v", name), ABSENT, ValueError) for name in (W, LAST)),
    *((("state", "v", LAST), value, TypeError) for value in (None, 1.0, [1.0, 1.0], np.ma.masked_array(np.ones(2)))),
    *((("state", "v", LAST), np.ones(2, dtype), TypeError) for dtype in (np.float32, int, object, complex, ">f8", "U3")),
    *((("state", "v", LAST), np.ones(shape), ValueError) for shape in (3, (2, 1), (), 0)),
    (("state", "v", W), np.ones((3, 2)), ValueError),
]


@pytest.mark.parametrize(("path", "value", "error"), DAMAGE, ids=str)
def test_damaged_state_dict_is_refused(path, value, error):
    opt = of_two_groups()
    blob = opt.state_dict()
    sound = copy.deepcopy(blob)
    run(opt, 2)
    opt.param_groups[0]["eps"] = 0.5  # what a dict that is taken in part would show
    *way, key = path
    place = blob
    for part in way:
        place = place[part]
    if value is ABSENT:
        del place[key]
    else:
        place[key] = value
    named = key if key in ("lr", "betas", "eps") else repr(key)
    if path == ("optimizer",) and value is not ABSENT:
        named = "not to Adam"
    with refused(error, named, opt=opt):
        opt.load_state_dict(blob)
    opt.load_state_dict(sound)
    np.testing.assert_equal(opt.state_dict(), sound)


@pytest.mark.parametrize(
    "blob", [None, [], 3, "state", np.ones(3), fastopt.Adam(np.ones(3))], ids=lambda blob: type(blob).__name__
)
def test_what_is_no_mapping_is_refused(blob):
    opt = of_two_groups()
    with refused(TypeError, "state_dict must be a mapping", type(blob).__name__, opt=opt):
        opt.load_state_dict(blob)


def foreign_optimizers():
    opt = of_two_groups()
    one, other = (group["params"] for group in opt.param_groups)
    yield "optimizer", opt, fastopt.RMSProp([{"params": one}, {"params": other}])
    yield "fewer groups", opt, fastopt.Adam([{"params": [one, other]}])
    yield "no groups", opt, fastopt.Adam([one, other])
    yield "order of groups", opt, fastopt.Adam([{"params": other}, {"params": one}])
    yield "structure", opt, fastopt.Adam([{"params": list(one.values())}, {"params": other}])
    yield "keys", opt, fastopt.Adam([{"params": {"V": one["W"], "b": one["b"]}}, {"params": other}])
    yield "shape", opt, fastopt.Adam([{"params": {"W": one["W"].T, "b": one["b"]}}, {"params": other}])
    yield "dtype", opt, fastopt.Adam([{"params": {"W": one["W"], "b": np.ones(3)}}, {"params": other}])
    w = np.ones(3)
    yield "state needed", fastopt.SGD(w), fastopt.SGD(w, momentum=0.9)
    yield "state missing", fastopt.SGD(w, momentum=0.9), fastopt.SGD(w)
    yield "accumulation", fastopt.AdaGrad(w), fastopt.AdaGrad(w, accumulate="rates")


@pytest.mark.parametrize(("opt", "other"), [pytest.param(*rest, id=name) for name, *rest in foreign_optimizers()])
def test_state_dict_of_another_optimizer_is_refused(opt, other):
    if opt.step_count == 0:
        run(opt, 2)
    with refused((TypeError, ValueError), opt=opt):
        opt.load_state_dict(other.state_dict())
    with refused((TypeError, ValueError), opt=other):
        other.load_state_dict(opt.state_dict())


@pytest.mark.wide(by=lambda row, make, duplicate: (row.rule, make, duplicate))
@every_copy
@pytest.mark.parametrize("row", TABLE, ids=str)
@every_structure
def test_original_and_copy_go_on_with_identical_bits(duplicate, row, make):
    opt = row.make(make(np.float32))
    run(opt, 3)
    twin = duplicate(opt)
    shared = duplicate is copy.copy
    assert type(twin) is type(opt)
    for one, two in zip(arrays(twin.params), arrays(opt.params), strict=True):
        assert np.shares_memory(one, two) == (shared and one.size > 0)
    for name in row.states:
        for one, two in zip(arrays(twin.state[name]), arrays(opt.state[name]), strict=True):
            assert not np.shares_memory(one, two)
    assert repr(twin) == repr(opt)
    assert_same_run(twin, opt)
    start = [array.copy() for array in arrays(opt.params)]
    run(opt, 3)
    if shared:  # the same parameters, so they have to go back first
        expected = [array.copy() for array in arrays(opt.params)]
        for array, values in zip(arrays(opt.params), start, strict=True):
            array[...] = values
        run(twin, 3)
        for array, values in zip(arrays(opt.params), expected, strict=True):
            assert_same_bits(array, values)
    else:
        run(twin, 3)
    assert_same_run(twin, opt)


@every_copy
def test_copies_keep_every_hyperparameter(duplicate):
    groups = [
        {"params": [np.ones(3)], "lr": halving, "momentum": 0.9},
        {"params": {"a": np.ones((2, 2), order="F")}, "lr": {"a": np.array([[1.0, 2.0], [3.0, 4.0]])}},
    ]
    opt = fastopt.SGD(groups, lr=0.1, dampening=0.25)
    run(opt, 2)
    twin = duplicate(opt)
    assert twin.param_groups[0]["lr"] is halving
    np.testing.assert_equal([dict(group) for group in twin.param_groups], [dict(group) for group in opt.param_groups])
    twin.param_groups[1]["lr"] = twin.param_groups[0]["dampening"] = 0.5
    assert (opt.param_groups[1]["lr"]["a"].size, opt.param_groups[0]["dampening"]) == (4, 0.25)


@every_copy
def test_copy_of_an_optimizer_whose_momentum_was_switched_off(duplicate):
    opt = fastopt.SGD([np.ones(3)], lr=0.1, momentum=0.9)
    run(opt, 2)
    opt.param_groups[0]["momentum"] = 0.0
    twin = duplicate(opt)
    np.testing.assert_array_equal(twin.state["p"][0], opt.state["p"][0])
    twin.param_groups[0]["momentum"] = 0.9
    run(twin, 1)
    assert twin.step_count == 3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_parameters_beside_the_optimizer_stay_its_parameters(duplicate):
    params = {"W": np.ones(3)}
    flat = fastopt.flatten(params)
    model = duplicate(
        {"params": params, "flat": flat, "opt": fastopt.SGD(params, lr=1.0), "of flat": fastopt.SGD(flat, lr=1.0)}
    )
    model["opt"].step({"W": np.ones(3)})
    model["of flat"].step(model["flat"].like())
    np.testing.assert_array_equal(model["params"]["W"], np.zeros(3))
    assert model["of flat"].params is model["flat"]
    np.testing.assert_array_equal(params["W"], np.ones(3))
