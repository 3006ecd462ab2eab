"""An optimizer takes one step at a time: what another thread asks for meanwhile is refused, by whatever way it would write."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastopt
from fastopt.engine.tables import address
from fastopt.step.plan import Plan
from fastopt.step.turn import Turn
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


def test_nobody_adds_or_takes_while_another_thread_adds(monkeypatch):
    opt = fastopt.SGD(w := np.zeros(3), lr=1.0, reduction="sum")
    opt.accumulate(np.ones(3))
    begin = Plan.begin

    def begun(plan):
        monkeypatch.undo()
        with ThreadPoolExecutor(1) as pool:
            for call in (lambda: opt.accumulate(np.ones(3)), opt.step):
                with refused(RuntimeError, "another thread takes a step"):
                    pool.submit(call).result()
        return begin(plan)

    monkeypatch.setattr(Plan, "begin", begun)
    opt.accumulate(np.full(3, 2.0))
    opt.step()
    assert w.tolist() == [-3.0] * 3


def test_a_forked_child_need_not_wait_for_threads_of_its_parent():
    turn = Turn()

    def entered():
        with turn:
            return b"entered"

    with ThreadPoolExecutor(1) as pool:
        pool.submit(turn.__enter__).result()
        with refused(RuntimeError, "another thread takes a step"):
            entered()
        assert in_a_fork(entered) == b"entered"


@pytest.mark.parametrize("is_inside", [False, True])
def test_threads_of_a_forked_child_are_refused_as_those_of_its_parent_are(is_inside):
    turn = Turn()

    def told():
        with turn, ThreadPoolExecutor(1) as pool, refused(RuntimeError, "another thread takes a step"):
            pool.submit(turn.__enter__).result()
        return b"refused"

    with turn if is_inside else contextlib.nullcontext():
        assert in_a_fork(told) == b"refused"


@pytest.mark.parametrize("method", ["step", "accumulate"])
def test_copies_of_gradients_are_not_those_of_a_signal_handler(method, monkeypatch):
    opt = fastopt.SGD(w := np.zeros((3, 2)), lr=1.0)
    write = Plan.write_gradients

    def interrupted(*arguments):
        monkeypatch.undo()
        assert opt.norm(np.full((2, 3), 2.0).T) == np.sqrt(24)
        write(*arguments)

    monkeypatch.setattr(Plan, "write_gradients", interrupted)
    getattr(opt, method)(np.ones((2, 3)).T)
    if method == "accumulate":
        opt.step()
    assert (w == -1).all()


def test_a_norm_is_what_it_is_though_a_signal_handler_has_changed_what_steps_do(monkeypatch):
    opt = fastopt.SGD(np.zeros((3, 2)), lr=1.0)
    write = Plan.write_gradients

    def interrupted(*arguments):
        monkeypatch.undo()
        opt.weight_decay = 0.5
        opt.step(np.ones((3, 2)))
        write(*arguments)

    monkeypatch.setattr(Plan, "write_gradients", interrupted)
    assert opt.norm(np.full((2, 3), 2.0).T) == np.sqrt(24)


@pytest.mark.parametrize("size", [5.0, 5e200])
def test_a_norm_is_not_that_of_what_a_signal_handler_asks_for(size, monkeypatch):
    opt = fastopt.SGD(np.zeros(4))
    opt.step(np.ones(4))
    opt.norm(np.ones(4))  # whose plan is taken again
    call = Plan.call

    def interrupted(*arguments):
        ended = call(*arguments)
        monkeypatch.undo()
        assert opt.norm(np.full(4, size)) == 2 * size
        return ended

    monkeypatch.setattr(Plan, "call", interrupted)
    assert opt.norm(np.ones(4)) == 2


def test_memory_of_a_copy_is_taken_again_when_that_is_no_more():
    opt = fastopt.SGD(np.zeros((3, 2)))
    ((p,),) = [group.parameters for group in opt.param_groups]
    first, second = (p.gradient("g", np.ones((2, 3)).T) for _ in range(2))
    places = address(first), address(second)
    assert places[0] != places[1]
    del first
    assert address(p.gradient("g", np.ones((2, 3)).T)) == places[0]


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
