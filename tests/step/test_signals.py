"""An exception that a signal handler raises during a step finds it taken whole, or not at all."""

import random

import numpy as np
import pytest

import fastopt
from tests.alarms import interrupted

TRIES = 60  # of each case; eighteen cases make a thousand


CASES = {
    "Adam": (fastopt.Adam, {}),
    "Adam, clipped": (fastopt.Adam, {"clip_norm": 1e6}),
    "Adam, averaged, with a schedule": (fastopt.Adam, {"ema_decay": 0.9, "lr": lambda step: 1e-3}),
    "LAMB": (fastopt.LAMB, {}),
    "ScheduleFreeSGD": (fastopt.ScheduleFreeSGD, {}),
    "two groups": (fastopt.Adam, None),
}


def made(case, count):
    optimizer, options = CASES[case]
    arrays = [np.ones(64, np.float32) for _ in range(count)]
    if options is None:
        half = (count + 1) // 2
        groups = [{"params": arrays[:half]}, {"params": arrays[half:]}]
        return optimizer(groups), [[np.ones(64, np.float32) for _ in each["params"]] for each in groups]
    return optimizer(arrays, **options), [np.ones(64, np.float32) for _ in arrays]


def seen(optimizer):
    """All that a step moves: the same for all arrays, since their gradients are the same."""
    groups = optimizer.param_groups
    parts = [np.stack([p.theta for group in groups for p in group.parameters])]
    parts += [np.stack([p.states[name] for group in groups for p in group.parameters]) for name in optimizer.state]
    scalars = [np.ravel(list(group.running.values())) for group in groups]
    return [part.copy() for part in parts], scalars, [group.step_count for group in groups]


def assert_same(found, expected):
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[2] == expected[2]


@pytest.mark.parametrize("count", [1, 50, 500])
@pytest.mark.parametrize("case", CASES)
def test_no_step_is_torn(case, count):
    optimizer, grads = made(case, count)
    reference, _ = made(case, count)
    fastopt.warmup(optimizer)  # to compile takes longer than any of these steps
    optimizer.step(grads)
    reference.step(grads)
    path = {1: seen(reference)}
    random.seed(count)
    caught = 0
    for _ in range(TRIES):
        caught += interrupted(random.uniform(1e-5, 3e-4), lambda: [optimizer.step(grads) for _ in range(1000)])
        while reference.step_count < optimizer.step_count:
            reference.step(grads)
            path = {reference.step_count: seen(reference)}
        assert_same(seen(optimizer), path[optimizer.step_count])
    assert caught > TRIES // 2


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_no_step_of_rows_is_torn(count):
    tables = [np.ones((100, 3), np.float32), np.ones((50, 3), np.float32)]
    optimizer = fastopt.Adam([*tables, bias := np.ones(8, np.float32)], clip_norm=1e6)
    rows, grads = np.arange(count) % 50, np.ones((count, 3), np.float32)
    batch = [rows, rows, None], [grads, grads, np.full(8, -(-count // 50), np.float32)]
    for _ in range(20):  # until all is compiled that launches come to need
        optimizer.step_rows(*batch)
    random.seed(count)
    caught = 0
    for _ in range(TRIES):
        caught += interrupted(random.uniform(1e-5, 3e-4), lambda: [optimizer.step_rows(*batch) for _ in range(1000)])
        # Of equal gradients there are equal steps: of all rows that are touched as often as the first one, and of the bias.
        for array, first in ((tables[0], tables[0][0, 0]), (tables[1], tables[0][0, 0]), (bias, tables[0][0, 0])):
            touched = array[: 1 if count == 1 and array is not bias else 40 if array is not bias else 8]
            assert np.all(touched == first)
        assert optimizer.param_groups[0].step_count == optimizer.step_count
        (p, *_) = optimizer.param_groups[0].parameters
        expected = 1.0 - 0.9**optimizer.step_count
        np.testing.assert_allclose(p.states["m"][0] / grads.dtype.type(-(-count // 50)), expected, rtol=1e-5)
    assert caught > TRIES // 2
