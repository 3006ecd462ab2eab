"""An optimizer takes one step at a time: what another thread asks for meanwhile is refused, by whatever way it would write."""

import numpy as np
import pytest

import fastopt
from tests.forks import in_a_fork
from tests.refusal import refused

ROWS = np.array([1, 3])


def swapped(opt):
    with opt.swap_ema():
        pass


def accumulated(opt):
    if not opt._accumulation.count:
        opt.accumulate(np.ones((5, 2), np.float32))
    opt.step()


def tables(opt):
    """What a step of the optimizer that is under way goes through."""
    kept = opt._stepping.plan._kept if opt._stepping.plan else ()
    return [hash(array.tobytes()) for array in kept if isinstance(array, np.ndarray)]


CALLS = {
    "step": lambda opt: opt.step(np.ones((5, 2), np.float32)),
    "step with gradients of another dtype": lambda opt: opt.step(np.ones((5, 2))),
    "step with gradients in another order": lambda opt: opt.step(np.ones((5, 2), np.float32, order="F")),
    "step with what was accumulated": accumulated,
    "step at another rate": lambda opt: opt.step(np.ones((5, 2), np.float32), lr=5.0),
    "step by another scale": lambda opt: opt.step(np.ones((5, 2), np.float32), 2.0),
    "step with other options": lambda opt: opt.param_groups[0].update(eps=0.5) or opt.step(np.ones((5, 2), np.float32)),
    "step_rows": lambda opt: opt.step_rows(ROWS, np.ones((2, 2), np.float32)),
    "catch_up": lambda opt: opt.catch_up(),
    "swap_ema": swapped,
}


@pytest.mark.parametrize("name", CALLS)
def test_whatever_would_write_is_refused_during_a_step(name):
    opt = fastopt.Adam(np.ones((5, 2), np.float32), ema_decay=0.5)
    if name == "catch_up":
        opt.step_rows(ROWS, np.ones((2, 2), np.float32), lazy=False)
    else:
        opt.step(np.ones((5, 2), np.float32))
    if name == "step with what was accumulated":
        opt.accumulate(np.zeros((5, 2), np.float32))
    opt._model.memory.busy[0] = 1  # as if another thread were in the midst of a step
    before, count, of_step = opt.params.copy(), opt.step_count, tables(opt)
    with refused(RuntimeError, "another thread takes a step"):
        CALLS[name](opt)
    assert np.array_equal(opt.params, before)
    assert opt.step_count == count
    assert tables(opt) == of_step
    opt._model.memory.busy[0] = 0
    CALLS[name](opt)


def test_a_child_that_is_forked_during_a_step_can_take_one():
    opt, g = fastopt.Adam(np.ones((5, 2), np.float32), ema_decay=0.5), np.ones((5, 2), np.float32)
    opt.step(g)
    busy = opt._model.memory.busy
    busy[0] = 1  # as if another thread, which the child doesn't have, were in the midst of a step
    found = in_a_fork(lambda: opt.step(g) or opt.params.tobytes())
    assert busy[0] == 1
    busy[0] = 0
    opt.step(g)
    assert found == opt.params.tobytes()


def test_rows_are_refused_while_a_thread_steps_the_table():
    opt = fastopt.SGD(np.ones((1_000_000, 4), np.float32))
    g, few = np.ones((1_000_000, 4), np.float32), np.ones((2, 4), np.float32)
    errors, taken = [], 0
    while not errors:  # until the call comes in the midst of a step
        step, taken = opt.step_async(g), taken + 1
        while opt.progress is None and not step.done():
            pass
        try:
            opt.step_rows(ROWS, few)
            taken += 1
        except RuntimeError as error:
            errors.append(str(error))
        step.result()
    assert errors == ["another thread takes a step of this optimizer; it takes one at a time"]
    assert opt.step_count == taken
