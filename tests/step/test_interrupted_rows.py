"""What comes up while rows are stepped or catch up: signal handlers, their exceptions, and other threads."""

import threading

import numpy as np
import pytest

import fastopt
from fastopt.step.plan import Plan
from fastopt.step.row_plan import RowPlan
from tests.alarms import interrupted
from tests.refusal import refused
from tests.step.test_missed_steps import WIDTH, assert_same, drawn, scattered, table, touching


def test_a_step_in_a_signal_handler_comes_before_the_one_that_it_interrupts(monkeypatch):
    rng = np.random.default_rng(21)
    start = table(rng)
    optimizer, apart = fastopt.Adam(start.copy()), fastopt.Adam(start.copy())
    few = np.array([3, 5, 3]), table(rng, shape=(3, WIDTH))
    many = rng.integers(0, len(start), 500), table(rng, shape=(500, WIDTH))  # which need more memory
    for each in (optimizer, apart):
        each.step_rows(*few)
    launch = RowPlan._launch

    def handled(*arguments):
        monkeypatch.undo()
        optimizer.lr = 0.5
        optimizer.step_rows(*many)
        return launch(*arguments)

    monkeypatch.setattr(RowPlan, "_launch", handled)
    optimizer.step_rows(*few)
    apart.lr = 0.5
    apart.step_rows(*many)
    apart.step_rows(*few)
    assert optimizer.step_count == 3
    np.testing.assert_array_equal(optimizer.params, apart.params)


def test_signal_handlers_see_what_waits_at_once(monkeypatch):
    rows, few, whole = np.array([1]), np.ones((1, 2)), np.ones((4, 2))
    optimizer = fastopt.Adam(np.ones((4, 2)))
    run, catch_up = RowPlan.run_rows, RowPlan.catch_up

    def run_rows(*arguments):
        ended = run(*arguments)
        with refused(RuntimeError, "call catch_up() first"):
            optimizer.step(whole)
        return ended

    def caught_up(*arguments):
        catch_up(*arguments)
        optimizer.step(whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(RowPlan, "run_rows", run_rows)
    monkeypatch.setattr(RowPlan, "catch_up", caught_up)
    optimizer.step_rows(rows, few, lazy=False)
    assert optimizer.step_count == 1
    with pytest.raises(KeyboardInterrupt):
        optimizer.catch_up()
    optimizer.step(whole)
    assert optimizer.step_count == 3


def test_a_whole_step_gives_way_to_rows_of_a_signal_handler_and_waits_for_them(monkeypatch):
    optimizer = fastopt.Adam(np.ones((4, 2)), clip_norm=1.0)
    optimizer.step(np.ones((4, 2)))
    optimizer.clip_norm = None  # so that the next step takes a plan of its own
    call = Plan.call

    def handled(*arguments):
        monkeypatch.undo()
        optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)
        return call(*arguments)

    monkeypatch.setattr(Plan, "call", handled)
    with refused(RuntimeError, "rows of params have steps to catch up with; call catch_up() first"):
        optimizer.step(np.ones((4, 2)))
    assert optimizer.step_count == 2


def test_other_threads_are_refused_while_one_steps():
    """As they would write to what its threads read; here they come while it asks its schedule."""
    errors = []

    def attempt(call):
        try:
            call()
        except RuntimeError as error:
            errors.append(str(error))

    def rate(step):
        while step == 1 and calls:
            thread = threading.Thread(target=attempt, args=(calls.pop(),))
            thread.start()
            thread.join()
        return 0.1

    batch = np.array([1]), np.ones((1, WIDTH), np.float32)
    optimizer = fastopt.Adam(table(np.random.default_rng(11)), lr=rate)
    calls = [optimizer.catch_up, lambda: optimizer.step_rows(*batch, lazy=False)]
    for _ in range(2):
        optimizer.step_rows(*batch, lazy=False)
    assert errors == ["another thread takes a step of this optimizer; it takes one at a time"] * 2
    assert optimizer.step_count == 2
    thread = threading.Thread(target=attempt, args=(optimizer.catch_up,))
    thread.start()
    thread.join()
    optimizer.state_dict()
    assert len(errors) == 2


def test_a_step_in_a_signal_handler_while_rows_catch_up(monkeypatch):
    start = table(np.random.default_rng(12))
    optimizer, whole = fastopt.Adam(start.copy()), fastopt.Adam(start.copy())
    for row in (1, 2):
        touching(optimizer, whole, row)
    launch = RowPlan._launch

    def handled(*arguments):
        monkeypatch.undo()
        touching(optimizer, whole, 3)
        return launch(*arguments)

    monkeypatch.setattr(RowPlan, "_launch", handled)
    optimizer.catch_up()
    assert_same(optimizer, whole)
    optimizer.state_dict()


def test_an_interrupt_leaves_rows_and_their_steps_together():
    """A handler that raises while rows are stepped finds a step that was taken and can be caught up with, or none."""
    rng = np.random.default_rng(8)
    start = table(rng, shape=(400, WIDTH))
    optimizer, whole = fastopt.Adam(start.copy()), fastopt.Adam(start.copy())
    batches = drawn(rng, 150, rows=400)
    optimizer.step_rows(*batches[0], lazy=False)  # which compiles, and is not to be interrupted
    count = 0
    for taken, batch in enumerate(batches[1:], start=1):
        while optimizer.step_count == taken:
            count += interrupted(10.0 ** rng.uniform(-5, -3), lambda batch=batch: optimizer.step_rows(*batch, lazy=False))
    assert count
    assert optimizer.step_count == len(batches)
    for rows, grads in batches:
        whole.step(scattered(start, rows, grads))
    optimizer.catch_up()
    assert_same(optimizer, whole)
