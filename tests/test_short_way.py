"""Steps that take the short way have the bits of the others, and take it whenever nothing surrounds the update."""

import numpy as np
import pytest

import fastopt
from bench.options import OPTIONS
from fastopt.engine.kernel import Kernel
from tests.table import assert_same_bits, every_row

GRADIENTS = np.random.default_rng(1).normal(size=(6, 40))


def takes_it(optimizer):
    return optimizer._plain is not None


@every_row
def test_both_ways_give_the_same_bits(row):
    one, several = row.make(np.ones(40)), row.make([np.ones(40)])
    assert not takes_it(several)
    for g in GRADIENTS:
        one.step(g)
        several.step([g])
    assert_same_bits(one.params, several.params[0])
    for name in row.states:
        assert_same_bits(one.state[name], several.state[name][0], name)


@pytest.mark.parametrize("option", OPTIONS)
def test_what_surrounds_the_update_takes_the_long_way(option):
    plain = {"maximize", "weight_decay", "bounds", "clip_value", "l1", "flush_subnormals", "ema_decay"}
    assert takes_it(fastopt.Adam(np.ones(3), **OPTIONS[option])) == (option in plain)


def test_it_is_taken_again_when_nothing_is_pending():
    optimizer = fastopt.Adam(np.ones(3), ema_decay=0.9)
    assert takes_it(optimizer)
    optimizer.accumulate(np.ones(3))
    assert not takes_it(optimizer)
    optimizer.discard()
    assert takes_it(optimizer)
    with optimizer.swap_ema():
        assert not takes_it(optimizer)
    assert takes_it(optimizer)
    optimizer.accumulate(np.ones(3))
    optimizer.step()
    assert takes_it(optimizer)
    optimizer.lr = lambda step: 0.1
    assert not takes_it(optimizer)
    optimizer.lr = 0.1
    assert takes_it(optimizer)
    optimizer.param_groups[0]["frozen"] = True
    assert not takes_it(optimizer)


def test_scales_and_norms_leave_it():
    optimizer = fastopt.Adam(np.ones(3))
    optimizer.step(np.ones(3), scale=0.5)
    assert not takes_it(optimizer)
    optimizer = fastopt.Adam(np.ones(3), nonfinite="skip")
    assert not takes_it(optimizer)
    optimizer.nonfinite = "propagate"
    assert takes_it(optimizer)


def test_an_accumulation_that_was_interrupted_is_forgotten(monkeypatch):
    optimizer = fastopt.SGD([np.zeros(3), np.zeros(3)], lr=1.0)
    prepare, calls = Kernel.prepare, []

    def interrupted(kernel):
        calls.append(kernel)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return prepare(kernel)

    monkeypatch.setattr(Kernel, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.accumulate([np.ones(3), np.ones(3)])
    optimizer.discard()
    optimizer.accumulate([np.ones(3), np.ones(3)])
    optimizer.step()
    np.testing.assert_array_equal(optimizer.params, -np.ones((2, 3)))
