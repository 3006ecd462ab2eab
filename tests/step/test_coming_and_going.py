"""One rate a call, beginning anew, and other arrays in the place of those before."""

import copy

import numpy as np
import pytest

import fastopt
from tests.refusal import refused
from tests.table import assert_same_bits, every_row

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5))


def test_a_rate_comes_with_a_step_and_stays():
    one, other = (fastopt.SGD(np.ones(5), lr=0.5) for _ in range(2))
    for lr, g in zip((0.1, 0.2, 0.3), GRADIENTS, strict=False):
        one.step(g, lr=lr)
        other.lr = lr
        other.step(g)
        assert one.lr == lr
    assert_same_bits(one.params, other.params)


def test_a_rate_of_a_step_that_fails_is_forgotten():
    opt = fastopt.SGD([{"params": np.ones(5)}, {"params": np.ones(2), "lr": 0.25}], lr=0.5)
    with refused(ValueError, "must have the shape", opt=opt):
        opt.step([np.ones(5), np.ones(3)], lr=0.125)
    with refused(ValueError, "lr must be", opt=opt):
        opt.step([np.ones(5), np.ones(2)], lr=-1.0)
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.25]


def test_noise_is_drawn_once_a_step_whatever_comes_with_it():
    one, other = (fastopt.NoisySGD(np.zeros(5), lr=0.5) for _ in range(2))
    for g in GRADIENTS:
        one.step(g, lr=0.5)
        other.step(g)
    assert_same_bits(one.params, other.params)


@every_row
def test_reset_is_a_new_beginning(row):
    used, new = row.make(np.ones(5)), row.make(np.ones(5))
    for g in GRADIENTS[:3]:
        used.step(g)
    used.params[...] = 1.0
    used.reset()
    if isinstance(used, fastopt.NoisySGD):  # whose generator goes on
        new.load_state_dict(used.state_dict())
    assert used.step_count == 0
    for g in GRADIENTS[3:]:
        used.step(g)
        new.step(g)
    assert_same_bits(used.params, new.params)
    for name in row.states:
        assert_same_bits(used.state[name], new.state[name], name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(5),
        lambda: {"a": np.ones(3), "b": [np.ones((1, 2), np.float32)]},
        lambda: fastopt.flatten([np.ones(3), np.ones(2)]),
        lambda: [{"params": np.ones(3), "lr": 0.5}, {"params": [np.ones(2)]}],
    ],
    ids=["array", "nested", "flat", "groups"],
)
def test_other_arrays_take_the_place_of_those_before(make):
    one, other = fastopt.Adam(make()), fastopt.Adam(make())
    old = copy.deepcopy(one.params)

    def step(opt):
        opt.step(copy.deepcopy(old))

    step(one)
    step(other)
    others = copy.deepcopy(one.params)
    before = copy.deepcopy(one.params)
    kept = one.params
    one.rebind(others)
    step(one)
    step(other)
    np.testing.assert_equal(plain(one.params), plain(other.params))
    np.testing.assert_equal(plain(kept), plain(before))  # those are not stepped any more
    assert one.step_count == 2


def plain(tree):
    return fastopt.arrays.tree.map_leaves(lambda leaf: getattr(leaf, "buffer", leaf), tree)


def test_arrays_that_can_not_take_the_place_are_refused():
    opt = fastopt.Adam([np.ones(3), np.ones(2)])
    opt.step([np.ones(3), np.ones(2)])
    with refused(ValueError, "params[1] must have the shape (2,) as before, got (3,)", opt=opt):
        opt.rebind([np.ones(3), np.ones(3)])
    with refused(TypeError, "params[0] must be of float64, got float32", opt=opt):
        opt.rebind([np.ones(3, np.float32), np.ones(2)])
    with refused(ValueError, "params must have length 2", opt=opt):
        opt.rebind([np.ones(3)])
    same = np.ones(3)
    with refused(ValueError, "overlap", opt=opt):
        opt.rebind([same, same[:2]])
