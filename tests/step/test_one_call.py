"""A step is one compiled call, whatever is asked of it; and one array has the bits of a list of one."""

import copy

import numpy as np
import pytest

import fastopt
from bench.options import OPTIONS
from fastopt.arrays.parameters import Parameter
from fastopt.engine import launch, runtime, steps
from tests.refusal import refused
from tests.table import TABLE, assert_same_bits, every_row

GRADIENTS = np.random.default_rng(1).normal(size=(6, 40))


@pytest.fixture
def calls(monkeypatch):
    """How each compiled call of a step ended."""
    ended = []
    step_function = launch.step_function

    def counted(parallel):
        run = step_function(parallel)

        def step(*arguments):
            ended.append(run(*arguments))
            return ended[-1]

        return step

    monkeypatch.setattr(launch, "step_function", counted)
    return ended


@every_row
def test_both_ways_give_the_same_bits(row):
    one, several = row.make(np.ones(40)), row.make([np.ones(40)])
    for g in GRADIENTS:
        one.step(g)
        several.step([g])
    assert_same_bits(one.params, several.params[0])
    for name in row.states:
        assert_same_bits(one.state[name], several.state[name][0], name)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("count", [1, 7])
def test_a_step_with_options_is_one_call(option, count, calls):
    optimizer = fastopt.Adam([np.ones(3) for _ in range(count)], **OPTIONS[option])
    for _ in range(3):
        calls.clear()
        optimizer.step([np.ones(3) for _ in range(count)])
    assert calls == [steps.DONE]


MEASURING = [row for row in TABLE if row.make(np.zeros(1)).param_groups[0].measure is not None]


@pytest.mark.parametrize("row", MEASURING, ids=str)
def test_a_step_that_depends_on_sums_is_one_call(row, calls):
    optimizer = row.make([np.ones(3), np.ones(4)])
    for _ in range(3):
        calls.clear()
        optimizer.step([np.ones(3), np.ones(4)])
    assert calls == [steps.DONE]


@pytest.mark.parametrize("reduce", [None, lambda message: None], ids=["alone", "with others"])
def test_gradients_in_plain_arrays_are_looked_at_by_compiled_code_alone(reduce, monkeypatch):
    monkeypatch.setattr(Parameter, "gradient", lambda parameter, name, g: pytest.fail(f"Python looks at {name}"))
    optimizer = fastopt.SGD([np.ones(3), np.ones(4)], reduce=reduce)
    for _ in range(2):
        optimizer.step([np.ones(3), np.ones(4)])
        assert optimizer.norm([np.ones(3), np.ones(4)]) == pytest.approx(np.sqrt(7.0))


def test_a_step_that_sets_gradients_to_zero_is_one_call(calls):
    lone, several = fastopt.SGD(np.ones(3), zero_grad=True), fastopt.SGD([np.ones(3), np.ones(4)], zero_grad=True)
    kept = [np.ones(3), np.ones(4)]
    several.step(kept)  # two that are new may overlap each other, which Python looks at
    calls.clear()
    for _ in range(3):
        several.step(kept)
        lone.step(np.ones(3))
    assert calls == [steps.DONE] * 6


def test_accumulated_gradients_of_all_arrays_are_one_call_each(calls):
    optimizer = fastopt.SGD([np.ones(3), np.ones(4)])
    for _ in range(3):
        calls.clear()
        for _ in range(2):
            optimizer.accumulate([np.ones(3), np.ones(4)])
        optimizer.step()
    assert calls == [steps.DONE] * 3


def test_an_accumulation_that_was_interrupted_is_forgotten(monkeypatch):
    optimizer = fastopt.SGD([np.zeros(3), np.zeros(3)], lr=1.0)

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(launch.Launch, "prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.accumulate([np.ones(3), np.ones(3)])
    optimizer.discard()
    optimizer.accumulate([np.ones(3), np.ones(3)])
    optimizer.step()
    np.testing.assert_array_equal(optimizer.params, -np.ones((2, 3)))


@pytest.fixture
def launches(monkeypatch):
    """On how many threads steps were taken."""
    numbers = []
    step_function = launch.step_function

    def counted(parallel):
        run = step_function(parallel)

        def step(threads, *arguments):
            numbers.append(threads)
            return run(threads, *arguments)

        return step

    monkeypatch.setattr(launch, "step_function", counted)
    monkeypatch.setattr(runtime, "_parallel_threshold", 0)
    return numbers


def test_an_optimizer_may_have_fewer_threads(launches):
    fastopt.set_num_threads(3)
    w = np.zeros(5000)
    optimizer = fastopt.SGD(w, threads=2, ema_decay=0.5)
    for threads, expected in ((2, 2), (1, 1), (7, 3), (None, 3)):
        optimizer.threads = threads
        launches.clear()
        optimizer.step(np.ones(5000))
        optimizer.accumulate(np.ones(5000))
        optimizer.step()
        with optimizer.swap_ema():
            pass
        assert launches == [expected] * 5
    assert "threads" not in optimizer.state_dict()["whole"]
    optimizer.threads = 2
    assert copy.copy(optimizer).threads == 2
    assert "threads=2" in repr(optimizer)
    for wrong, error in ((0, ValueError), (1.0, TypeError), (True, TypeError)):
        with refused(error, "threads must be ", opt=optimizer):
            optimizer.threads = wrong


def test_sums_that_go_over_all_who_take_part_have_as_many_threads(launches):
    fastopt.set_num_threads(2)
    optimizer = fastopt.LAMB(np.ones(5000), clip_norm=1.0, reduce=lambda message: None)
    optimizer.step(np.ones(5000))
    assert launches == [2] * 3


def test_the_threads_of_sums_are_as_many_as_their_own_traffic_is_worth(launches):
    fastopt.set_num_threads(2)
    fastopt.set_parallel_threshold(3 * 8 * 5000)  # between the traffic of the norm and that of all
    optimizer = fastopt.SGD(np.ones(5000), clip_norm=1.0, reduce=lambda message: None)
    launches.clear()
    optimizer.step(np.ones(5000))
    assert launches == [1, 2]
