"""Options that a group may have of its own: masks, freezing, caution, values by name; and groups that are added."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from tests.refusal import refused
from tests.table import assert_follows, assert_same_bits, every_dtype, every_rule, form


def gradients(size, steps, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(dtype) for _ in range(steps)]


@pytest.mark.parametrize("size", [50, 200_000])
@every_dtype
def test_masked_elements_and_their_state_keep_their_bits(dtype, size):
    rng = np.random.default_rng(1)
    start, mask = rng.normal(size=size).astype(dtype), rng.random(size) < 0.5
    masked, free = start.copy(), start.copy()
    one, other = fastopt.Adam(masked, mask=mask, weight_decay=0.1), fastopt.Adam(free, weight_decay=0.1)
    for g in gradients(size, 3, dtype):
        one.step(g)
        other.step(g)
    assert_same_bits(masked, np.where(mask, free, start))
    for name in ("m", "v"):
        assert_same_bits(one.state[name], np.where(mask, other.state[name], dtype(0)))


@pytest.mark.wide(by=lambda row: (form(row),))
@every_rule
def test_a_mask_of_nothing_stops_every_optimizer(row):
    w = np.linspace(-1.0, 1.0, 20)
    start = w.copy()
    opt = row.make(w, mask=np.zeros(20, bool))
    before = {name: state.copy() for name, state in opt.state.items()}
    for g in gradients(20, 2):
        opt.step(g)
    assert_same_bits(w, start)
    for name, state in before.items():
        assert_same_bits(opt.state[name], state)


def test_masks_come_in_the_structure_of_the_parameters_and_can_go():
    params = {"W": np.zeros((2, 3), order="F"), "b": np.zeros(2)}
    mask = {"W": np.array([[True, False, True], [False, True, False]]), "b": np.array([True, False])}
    grads = {"W": np.ones((2, 3)), "b": np.ones(2)}
    opt = fastopt.SGD(params, lr=1.0, mask=mask)
    opt.step(grads)
    np.testing.assert_array_equal(params["W"], -mask["W"].astype(float))
    np.testing.assert_array_equal(params["b"], -mask["b"].astype(float))
    twin = pickle.loads(pickle.dumps(opt))
    twin.step(grads)
    np.testing.assert_array_equal(twin.params["b"], [-2.0, 0.0])
    opt.param_groups[0]["mask"] = None
    opt.step(grads)
    np.testing.assert_array_equal(params["b"], [-2.0, -1.0])


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones(3), TypeError, ("mask", "must be of bool", "float64")),
        (np.ones(4, bool), ValueError, ("mask", "(3,)", "(4,)")),
        (np.ma.masked_array(np.ones(3, bool), [True, False, False]), TypeError, ("mask", "MaskedArray")),
        ([np.ones(3, bool)], TypeError, ("mask",)),
        (True, TypeError, ("mask",)),
    ],
)
def test_masks_that_are_refused(mask, error, words):
    opt = fastopt.Adam(np.ones(3))
    opt.step(np.ones(3))
    with refused(error, *words, opt=opt):
        opt.param_groups[0]["mask"] = mask


def cautious_adam(theta, gs, lr, betas=(0.9, 0.999), eps=1e-8):
    """Liang et al. (2024), algorithm 2 without decay; the mask is divided by its mean, which is at least 1e-3."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(gs, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        u = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        phi = (u * g > 0).astype(float)
        theta = theta - lr * u * phi / max(phi.mean(), 1e-3)
    return theta


@pytest.mark.parametrize("size", [50, 300_000])
def test_caution_follows_the_paper(size):
    start = np.linspace(-1, 1, size)
    w = start.copy()
    opt = fastopt.Adam(w, lr=0.1, cautious=True)
    gs = gradients(size, 5)
    for g in gs:
        opt.step(g)
    assert_follows(w, cautious_adam(start, gs, 0.1), 5)


def test_caution_counts_in_each_tensor_of_a_flat():
    params = {"W": np.linspace(0, 1, 12).reshape(3, 4), "b": np.linspace(1, 2, 5)}
    flat = fastopt.flatten(params)
    one, other = fastopt.Lion(params, lr=0.1, cautious=True), fastopt.Lion(flat, lr=0.1, cautious=True)
    for step in range(4):
        rng = np.random.default_rng(step)
        grads = {"W": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}
        one.step(grads)
        of_flat = flat.like()
        for key, g in grads.items():
            of_flat[key][...] = g
        other.step(of_flat)
    for key, array in params.items():
        assert_same_bits(np.ascontiguousarray(flat[key]), array)


def test_caution_is_refused_where_the_whole_update_is_measured():
    with pytest.raises(ValueError, match="cautious=True is not for LAMB"):
        fastopt.LAMB(np.ones(3), cautious=True)


def test_a_frozen_group_stays_as_it_is():
    a, b = np.ones(3), np.ones(2)
    opt = fastopt.Adam([{"params": [a]}, {"params": [b]}], lr=0.1)
    opt.step([[np.ones(3)], [np.ones(2)]])
    state = opt.state["m"][0][0].copy()
    opt.param_groups[0]["frozen"] = True
    for _ in range(2):
        opt.step([None, [np.ones(2)]])
    opt.step([[np.full(3, np.nan)], [np.ones(2)]])
    assert_same_bits(opt.state["m"][0][0], state)
    np.testing.assert_allclose(a, 0.9)
    assert [group.step_count for group in opt.param_groups] == [1, 4]
    assert opt.step_count == 4
    opt.param_groups[0]["frozen"] = False
    opt.step([[np.ones(3)], [np.ones(2)]])
    np.testing.assert_allclose(a, 0.8)  # the second step of its own, not the fifth


def nested():
    return {"encoder": [{"weight": np.ones((2, 2)), "bias": np.ones(2)}], "bias": np.ones(3), "scale": np.ones(())}


def test_values_by_name():
    params = nested()
    by_name = {"encoder.*.bias": {"lr": 0.5}, "*bias": {"lr": 0.25, "weight_decay": 0.0}}
    opt = fastopt.SGD(params, lr=1.0, weight_decay=0.5, by_name=by_name)
    assert [list(group["params"]) for group in opt.param_groups] == [
        ["encoder.0.weight", "scale"],
        ["encoder.0.bias"],
        ["bias"],
    ]
    opt.step(nested())
    np.testing.assert_array_equal(params["encoder"][0]["weight"], np.full((2, 2), 1 - 1.5))
    np.testing.assert_array_equal(params["encoder"][0]["bias"], np.full(2, 1 - 0.5 * 1.5))
    np.testing.assert_array_equal(params["bias"], np.full(3, 1 - 0.25))
    np.testing.assert_array_equal(params["scale"], -0.5)
    assert opt.params["encoder"][0]["bias"] is params["encoder"][0]["bias"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_values_by_name_are_kept_by_copies_and_state_dicts(duplicate):
    def make():
        return fastopt.Adam(nested(), lr=0.1, by_name={"*bias": {"betas": (0.5, 0.5)}})

    opt = make()
    opt.step(nested())
    resumed = make()
    resumed.load_state_dict(opt.state_dict())
    twin = duplicate(opt)
    for one in (opt, twin):
        one.step(nested())
    assert_same_bits(twin.params["bias"], opt.params["bias"])
    assert_same_bits(twin.state["v"]["encoder"][0]["weight"], opt.state["v"]["encoder"][0]["weight"])
    assert resumed.step_count == 1
    assert twin.param_groups[1]["betas"] == (0.5, 0.5)


@pytest.mark.parametrize(
    ("by_name", "error", "message"),
    [
        ({"*.gain": {"lr": 1.0}}, ValueError, r"'\*\.gain', which matches none"),
        ({"*": {"lr": 1.0}, "*bias": {"lr": 0.5}}, ValueError, r"'\*bias', which matches none"),
        ({"*bias": {"rate": 1.0}}, TypeError, "'rate'"),
        ({"*bias": 1.0}, TypeError, "by_name"),
        ([("*bias", {})], TypeError, "by_name"),
    ],
)
def test_names_that_are_refused(by_name, error, message):
    with pytest.raises(error, match=message):
        fastopt.Adam(nested(), by_name=by_name)


def test_names_and_groups_dont_mix():
    with pytest.raises(ValueError, match="by_name is for parameters that are not in groups"):
        fastopt.Adam([{"params": nested()}], by_name={"*bias": {"lr": 1.0}})


def test_a_group_is_added():
    w, b = np.ones(3), np.ones(2)
    opt = fastopt.Adam({"w": w}, lr=0.1)
    opt.step({"w": np.ones(3)})
    opt.add_param_group({"params": [b], "lr": 0.5})
    opt.step([{"w": np.ones(3)}, [np.ones(2)]])
    np.testing.assert_allclose(w, 0.8)
    np.testing.assert_allclose(b, 0.5)  # its first step, corrected as such
    assert [group.step_count for group in opt.param_groups] == [2, 1]

    arrays = [w.copy(), b.copy()]
    resumed = fastopt.Adam([{"params": {"w": arrays[0]}}, {"params": [arrays[1]]}])
    resumed.load_state_dict(opt.state_dict())
    for each in (opt, resumed):
        each.step([{"w": np.full(3, 2.0)}, [np.full(2, -1.0)]])
    assert_same_bits(arrays[0], w)
    assert_same_bits(arrays[1], b)


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"lr": 0.5}, TypeError, "'params'"),
        ({"params": [np.ones(2)], "rate": 0.5}, TypeError, "'rate'"),
        ({"params": [np.ones(2)], "lr": -0.5}, ValueError, "lr"),
        ({"params": [np.ones(2, int)]}, TypeError, r"params\[1\]\['params'\]\[0\]"),
    ],
)
def test_groups_that_cant_be_added(group, error, message):
    w = np.ones(3)
    opt = fastopt.Adam(w, lr=0.1)
    opt.step(np.ones(3))
    with pytest.raises(error, match=message):
        opt.add_param_group(group)
    with pytest.raises(ValueError, match="overlap"):
        opt.add_param_group({"params": [w[:2]]})
    assert len(opt.param_groups) == 1
    opt.step(np.ones(3))
    assert opt.step_count == 2


def test_no_group_is_added_to_values_by_name():
    opt = fastopt.Adam(nested(), by_name={"*bias": {"lr": 1.0}})
    with refused(ValueError, "by_name", opt=opt):
        opt.add_param_group({"params": [np.ones(2)]})
