"""Asking and telling: points, results, and checkpoints that go on with the same bits."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.step.stepping import Stepping
from tests.minimization.test_minimize import both, bowl, slope
from tests.refusal import refused
from tests.table import assert_same_bits


class Simulation:
    """Value and gradient from one solve, which it keeps by the point that it belongs to."""

    def __init__(self):
        self.x, self.solves = None, 0

    def solve(self, x):
        if self.x is None or not np.array_equal(self.x, x):
            self.x, self.answer, self.solves = x, both(x), self.solves + 1
        return self.answer

    def value(self, x):
        return self.solve(x)[0]

    def gradient(self, x):
        return self.solve(x)[1]


@pytest.mark.parametrize("size", [2, 5000])
def test_a_simulation_may_keep_the_point(size):
    simulation = Simulation()
    options = {"lr": 0.5, "maxiter": 300, "ftol": 0.0, "gtol": 1e-4}
    result = fastopt.minimize(simulation.value, np.full(size, 100.0), jac=simulation.gradient, options=options)
    np.testing.assert_allclose(fastopt.minimize(both, np.full(size, 100.0), jac=True, options=options).x, result.x)
    assert result.fun < bowl(np.full(size, 100.0)) / 100
    assert simulation.solves == result.nfev == result.nit + 1


@pytest.mark.parametrize("size", [3, 5000, 70_001])
def test_who_keeps_a_point_keeps_it(size):
    solver = fastopt.Solver(np.zeros(size), "sgd", lr=1.0, maxiter=20)
    kept, views = [], []
    while not solver.done:
        x = solver.ask()
        kept.append((x, x.copy()))
        views.append((x[1:], x[1:].copy()))
        if len(kept) % 4 == 0:
            kept.pop(-2)
        solver.tell(None, -np.ones(size))
    for now, then in kept + views:
        np.testing.assert_array_equal(now, then)


def test_memory_of_large_points_is_taken_again_when_nobody_holds_it():
    solver = fastopt.Solver(np.zeros(50_000), "sgd", maxiter=50)
    addresses = set()
    while not solver.done:
        x = solver.ask()
        x[:] = np.nan  # it is the caller's
        addresses.add(x.ctypes.data)
        solver.tell(None, np.ones(50_000))
    assert len(addresses) <= 3
    assert np.all(np.isfinite(solver.result().x))


def test_arrays_of_results_and_callbacks_are_nobody_elses():
    buffer, seen = np.zeros(2), []

    def gradient(x):
        buffer[...] = slope(x)
        return buffer

    result = fastopt.minimize(
        bowl, np.zeros(2), jac=gradient, callback=lambda intermediate_result: seen.append(intermediate_result)
    )
    for each in (result, *seen[:5]):
        np.testing.assert_array_equal(each.jac, slope(each.x))
        each.x[...] = each.jac[...] = np.nan
    assert len({each.x.ctypes.data for each in seen[:5]}) == 5
    state = result.state
    before = copy.deepcopy(state.data)
    fastopt.minimize(bowl, result.x, jac=gradient, options={"state": state, "maxiter": 5})
    np.testing.assert_equal(state.data, before)
    assert "state: <Adam after" in repr(result)
    plain = fastopt.minimize(bowl, np.zeros(2), method="sgd", jac=gradient, options={"maxiter": 3, "momentum": 0.0})
    assert "state: <SGD after 3 steps of 2 variables>" in repr(plain)


def by_hand(solver, fun=both):
    while not solver.done:
        solver.tell(*fun(solver.ask()))
    return solver.result()


@pytest.mark.parametrize(
    "options",
    [{}, {"ftol": 1e-5}, {"patience": 9, "ftol": 1e-4}, {"best": True}, {"xtol": 1e-3}, {"maxiter": 7}, {"nonfinite": "skip"}],
    ids=str,
)
def test_minimize_is_a_loop_over_it(options):
    options = {"lr": 0.3, "maxiter": 200, **options}
    asked = by_hand(fastopt.Solver([0.0, 9.0], bounds=[(0, 5), (0, None)], **options))
    called = fastopt.minimize(both, [0.0, 9.0], jac=True, bounds=[(0, 5), (0, None)], options=options)
    assert_same_bits(asked.x, called.x)
    assert_same_bits(asked.jac, called.jac)
    for key in ("fun", "nit", "nfev", "status", "success", "message"):
        assert asked[key] == called[key]


def test_a_point_is_the_same_until_something_is_told():
    solver = fastopt.Solver([1.0, 2.0], "sgd", lr=0.5, maxiter=1)
    assert_same_bits(solver.ask(), solver.ask())
    assert (solver.done, solver.nit, solver.message) == (False, 0, "It has not ended yet.")
    early = solver.result()
    assert (early.nit, early.status, early.success, early.jac) == (0, None, False, None)
    np.testing.assert_array_equal(early.x, [1.0, 2.0])
    solver.tell(5.0, [1.0, 1.0])
    so_far = solver.result()
    assert (so_far.nit, so_far.fun, so_far.nfev) == (0, 5.0, 1)
    np.testing.assert_array_equal(so_far.x, [1.0, 2.0])
    np.testing.assert_array_equal(solver.ask(), [0.5, 1.5])
    solver.tell(4.0, [[1.0, 0.0]])
    assert (solver.done, solver.result().status, solver.result().nit) == (True, 1, 1)
    with refused(RuntimeError, "the solver is done, and can be told no more: The number of steps was reached."):
        solver.tell(3.0, [0.0, 0.0])
    stopped = fastopt.Solver([1.0])
    stopped.stop()
    assert (stopped.done, stopped.result().status) == (True, 99)
    own = fastopt.Solver([1.0])
    own.stop(42)
    assert (own.result().status, own.result().success, own.message) == (42, False, stopped.message)


TOLD = [
    ((None, [1.0]), ValueError, "tell must give a gradient of 2 elements, got one of shape (1,)"),
    ((None, [1j, 1.0]), TypeError, "tell must give a gradient of real numbers, got complex128"),
    (("a", [1.0, 1.0]), TypeError, "tell must give a real number, got 'a'"),
]


@pytest.mark.parametrize(("told", "error", "words"), TOLD, ids=str)
def test_what_is_told_is_checked(told, error, words):
    solver = fastopt.Solver([0.0, 1.0])
    solver.ask()
    with refused(error, words):
        solver.tell(*told)
    assert (solver.nit, solver.result().nfev) == (0, 0)
    solver.tell(1.0, [1.0, 1.0])
    assert solver.nit == 1


def test_what_is_told_belongs_to_a_point_that_was_asked_for():
    solver = fastopt.Solver([1.0, 2.0], "sgd", lr=0.5, nonfinite="skip")
    words = "the solver must be asked for a point before it is told what was found there"
    with refused(RuntimeError, words):
        solver.tell(5.0, [1.0, 1.0])
    for value in (5.0, math.nan, 4.0):  # the one that is skipped, too
        solver.ask()
        solver.tell(value, [1.0, 1.0])
        with refused(RuntimeError, words):
            solver.tell(value, [1.0, 1.0])
    np.testing.assert_array_equal(solver.ask(), [0.0, 1.0])
    assert (solver.nit, solver.result().nfev) == (2, 3)


def test_nothing_is_evaluated_again_at_the_end():
    for options in (
        {"gtol": 1e-3},
        {"ftol": 1e-6},
        {"xtol": 1e-4},
        {"maxiter": 9},
        {"time_limit": 0.0},
        {"patience": 0, "ftol": 0.0},
    ):
        calls = []
        result = fastopt.minimize(lambda x: calls.append(x) or both(x), np.zeros(3), jac=True, options={"lr": 0.1, **options})  # noqa: B023
        assert len(calls) == result.nfev == result.nit + 1
    corner = fastopt.minimize(both, np.zeros(3), jac=True, bounds=[(-1, 0)] * 3)
    assert (corner.nit, corner.nfev, corner.status, corner.success) == (0, 1, 0, True)


def test_the_default_tolerance_and_what_is_no_success():
    result = fastopt.minimize(rosen, [-1.2, 1.0], jac=rosen_der)
    assert (result.status, result.success, result.nit) == (1, False, 1000)
    result = fastopt.minimize(rosen, [-1.2, 1.0], jac=rosen_der, options={"lr": 0.02, "maxiter": 20_000})
    assert (result.status, result.success) == (0, True)
    assert np.abs(result.jac).max() <= 1e-5


def test_callbacks_see_every_point_but_the_start():
    seen = []
    result = fastopt.minimize(both, np.zeros(2), jac=True, callback=lambda xk: seen.append(xk), options={"maxiter": 5})
    assert (len(seen), result.nit) == (5, 5)
    assert_same_bits(seen[-1], result.x)
    stopping = fastopt.minimize(both, np.zeros(2), jac=True, callback=lambda xk: xk is not None and len(seen) == 5)
    assert (stopping.status, stopping.nit, stopping.nfev) == (99, 1, 2)


CASES = [
    {},
    {"patience": 30, "ftol": 1e-3},
    {"ftol": 1e-9},
    {"best": True, "lr": 0.5},
    {"method": "sgd", "momentum": 0.9, "lr": 0.01},
    {"method": "prodigy", "lr": 1.0},
    {"lr": fastopt.schedules.Exponential(0.1, 0.99), "nonfinite": "skip"},
]


@given(st.sampled_from(CASES), st.integers(1, 24), st.booleans())
def test_checkpoints_go_on_with_the_same_bits(case, at, is_bounded):
    case = {"maxiter": 25, "lr": 0.1, "method": "adam", **case}
    method, bounds = case.pop("method"), [(-1, 5), (0, 2)] if is_bounded else None
    whole = by_hand(fastopt.Solver([0.0, 1.0], method, bounds, **case))
    saved = []

    def callback(intermediate_result):
        if intermediate_result.nit == at:
            saved.append(pickle.dumps(intermediate_result))

    by_hand(fastopt.Solver([0.0, 1.0], method, bounds, callback, **case))
    if at <= whole.nit:
        state = pickle.loads(saved[0]).state
        assert_same_bits(state["x"], pickle.loads(saved[0]).x)
        again = by_hand(fastopt.Solver(state["x"], method, bounds, **{**case, "state": state, "maxiter": 25 - at}))
        assert_same_bits(again.x, whole.x)
        assert (again.fun, again.status, again.nit + at) == (whole.fun, whole.status, whole.nit)


def test_a_state_of_a_schedule_goes_on_with_a_number_and_the_other_way_round():
    options = {"maxiter": 5, "lr": fastopt.schedules.Exponential(0.1, 0.5)}
    first = fastopt.minimize(both, np.zeros(2), jac=True, options=options)
    second = fastopt.minimize(both, first.x, jac=True, options={"maxiter": 5, "lr": 0.1, "state": first.state})
    assert second.nit == 5
    third = fastopt.minimize(both, second.x, jac=True, options={**options, "state": second.state})
    assert (third.nit, third.state["optimizer"]["step_count"]) == (5, 15)
    elsewhere = fastopt.minimize(both, [1.0, 2.0], jac=True, options={"maxiter": 0, "state": first.state, "gtol": None})
    np.testing.assert_array_equal(elsewhere.x, [1.0, 2.0])  # of another point only averages and steps are taken
    assert elsewhere.state["optimizer"]["step_count"] == 5


def test_an_interrupt_returns_the_result_so_far_where_asked():
    calls = []

    def fun(x):
        calls.append(x)
        if len(calls) % 5 == 0:
            raise KeyboardInterrupt
        return both(x)

    result = fastopt.minimize(fun, np.zeros(2), jac=True, options={"lr": 0.1, "interrupt": "return"})
    assert (result.status, result.success, result.nit, result.jac) == (6, False, 3, None)
    assert result.fun == bowl(result.x)
    assert "interrupted" in result.message
    again = fastopt.minimize(both, result.state["x"], jac=True, options={"lr": 0.1, "maxiter": 16, "state": result.state})
    whole = fastopt.minimize(both, np.zeros(2), jac=True, options={"lr": 0.1, "maxiter": 20})
    assert_same_bits(again.x, whole.x)
    with pytest.raises(KeyboardInterrupt):
        fastopt.minimize(fun, np.zeros(2), jac=True)


@pytest.mark.parametrize("x_scale", [None, 0.5])
def test_an_interrupt_right_after_a_step_returns_what_was_evaluated(x_scale, monkeypatch):
    options = {"lr": 0.1, "x_scale": x_scale}
    take, taken = Stepping.take, []

    def interrupted(*arguments):
        take(*arguments)
        taken.append(arguments)
        if len(taken) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stepping, "take", interrupted)
        result = fastopt.minimize(both, np.zeros(2), jac=True, options={**options, "interrupt": "return"})
    assert (result.status, result.nit, result.jac) == (6, 2, None)
    assert result.fun == bowl(result.x)
    again = fastopt.minimize(both, result.state["x"], jac=True, options={**options, "maxiter": 17, "state": result.state})
    whole = fastopt.minimize(both, np.zeros(2), jac=True, options={**options, "maxiter": 20})
    assert_same_bits(again.x, whole.x)


def test_progress_shows_the_norm_of_what_moves(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    options = {"disp": True, "maxiter": 1, "mask": np.array([True, False])}
    fastopt.minimize(lambda x: (float(x @ x), 2 * x), [3.0, 4.0], jac=True, options=options)
    assert "step 0 of 1: fun 25, norm 6, lr 0.001\n" in capsys.readouterr().out


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_progress_shows_value_norm_and_rate(capsys, monkeypatch, has_tqdm):
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    result = fastopt.minimize(bowl, np.zeros(2), jac=slope, options={"disp": True, "maxiter": 20, "lr": 0.1})
    out, err = capsys.readouterr()
    text = err if has_tqdm else out
    assert "20/20" in text if has_tqdm else "step 20 of 20: " in text
    assert f"fun{'=' if has_tqdm else ' '}{result.fun:.6g}" in text
    assert f"norm{'=' if has_tqdm else ' '}{np.linalg.norm(result.jac):.3g}" in text
    assert f"lr{'=' if has_tqdm else ' '}0.1" in text
    assert has_tqdm or out.endswith(f"{result.message}\n")
    assert result.nfev == 21


def test_unknown_values_are_nan_until_somebody_asks():
    solver = fastopt.Solver([1.0, 2.0], maxiter=2)
    assert not solver.needs_value
    assert fastopt.Solver([1.0], patience=3).needs_value
    while not solver.done:
        solver.ask()
        solver.tell(None, np.ones(2))
    assert math.isnan(solver.result().fun)


STARTS = np.array([[0.0, 1.0], [-1.2, 1.0], [1.5, 1.5], [-2.0, 2.0]])


def rosens(points):
    return np.array([rosen(x) for x in points]), np.array([rosen_der(x) for x in points])


@pytest.mark.parametrize("method", ["adam", "sgd", "lamb", "rprop"])
def test_each_start_goes_its_own_way(method):
    options = {"maxiter": 40, "lr": 1e-3, "gtol": None}
    bounds = [(-1.5, 1.25), (None, 1.25)]
    together = by_hand(fastopt.Solver(starts=STARTS, method=method, bounds=bounds, **options), rosens)
    alone = [by_hand(fastopt.Solver(x, method, bounds, **options), lambda x: (rosen(x), rosen_der(x))) for x in STARTS]
    for row, each in zip(together.population, alone, strict=True):
        assert_same_bits(row, each.x)
    values = [each.fun for each in alone]
    np.testing.assert_array_equal(together.population_energies, values)
    best = alone[int(np.argmin(values))]
    assert (together.fun, together.nit, together.success) == (best.fun, 40, True)
    assert_same_bits(together.x, best.x)
    assert_same_bits(together.jac, best.jac)


def test_tolerances_hold_for_all_starts():
    fun = lambda points: (np.array([bowl(x) for x in points]), slope(points))  # noqa: E731
    starts = [[3.0, 3.0], [0.0, 9.0]]
    result = by_hand(fastopt.Solver(starts=starts, lr=0.1, gtol=1e-3), fun)
    assert result.status == 0
    assert result.nit > 10
    np.testing.assert_allclose(result.population, 3.0, atol=1e-3)
    best = by_hand(fastopt.Solver(starts=starts, lr=0.1, gtol=None, maxiter=5, best=True), fun)
    np.testing.assert_array_equal(best.x, 3.0)
    assert best.fun == 0.0


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_start_is_lost_where_it_is_not_finite(what):
    def fun(points):
        values, gradients = np.array([bowl(x) for x in points]), slope(points)
        wrong = points[:, 0] > 1.0
        (values if what == "value" else gradients)[wrong] = np.nan
        return values, gradients

    starts = np.array([[0.0, 0.0], [-50.0, -50.0]])
    result = by_hand(fastopt.Solver(starts=starts, method="sgd", lr=0.1, maxiter=5), fun)
    assert result.nit == 5
    np.testing.assert_allclose(result.population[0], 3.0 * (1 - 0.8))
    np.testing.assert_allclose(result.population[1], 3.0 - 53.0 * 0.8**5)
    assert result.population_energies[0] == np.inf
    assert_same_bits(result.x, result.population[1])
    lost = by_hand(fastopt.Solver(starts=starts, method="sgd", lr=0.1, maxiter=500), fun)
    assert (lost.status, lost.success) == (5, False)
    assert np.all(lost.population <= 1.0)
    with refused(ValueError, "after 2 steps start 0, its value or its gradient is not finite"):
        by_hand(fastopt.Solver(starts=starts, method="sgd", lr=0.1, nonfinite="raise"), fun)


def test_populations_go_on_from_checkpoints():
    options = {"lr": 0.02, "best": True, "gtol": None}
    whole = by_hand(fastopt.Solver(starts=STARTS, maxiter=30, **options), rosens)
    first = by_hand(fastopt.Solver(starts=STARTS, maxiter=12, **options), rosens)
    state = pickle.loads(pickle.dumps(first.state))
    second = by_hand(fastopt.Solver(starts=state["x"], maxiter=18, state=state, **options), rosens)
    assert_same_bits(second.population, whole.population)
    assert_same_bits(second.x, whole.x)
    assert second.fun == whole.fun


@pytest.mark.parametrize("noisy", [False, True])
def test_a_state_of_other_starts_is_one_of_another_point(noisy):
    options = {"lr": 0.1, "x_scale": "auto", "noisy": noisy, "gtol": None}
    both_of = lambda x: ((x**2).sum(axis=1), 2.0 * x)  # noqa: E731
    state = by_hand(fastopt.Solver(starts=1.0 + np.arange(6.0).reshape(2, 3), maxiter=4, **options), both_of).state
    others = state["x"].reshape(3, 2)
    begun, taken = fastopt.Solver(starts=others, **options), fastopt.Solver(starts=others, state=state, **options)
    np.testing.assert_equal(taken.state["memories"], begun.state["memories"])
    assert taken.state["optimizer"]["step_count"] == 4
    taken.tell(*both_of(taken.ask()))
    np.testing.assert_array_equal(taken.result().population_energies, both_of(others)[0])


def test_what_a_state_of_another_version_remembers_is_left(monkeypatch):
    options = {"lr": 0.1, "noisy": True, "gtol": None, "patience": 5}
    whole = fastopt.minimize(both, np.zeros(2), jac=True, options={**options, "maxiter": 9})
    state = copy.deepcopy(whole.state)
    state["memories"]["Plateau"]["_of_another_version"] = 1
    del state["memories"]["NoImprovement"]["_waited"]
    solver = fastopt.Solver(state["x"], state=state, **options)
    begun, known = solver.state["memories"], whole.state["memories"]
    assert begun["Told"] == known["Told"]
    assert begun["Plateau"]["_steps"] == 0
    assert begun["NoImprovement"] == {"_least": math.inf, "_waited": 0}
    assert not hasattr(solver._plateau, "_of_another_version")


POPULATIONS = [
    ({}, TypeError, "a solver must have either x0 or starts, got neither"),
    ({"x0": [1.0], "starts": [[1.0]]}, TypeError, "got both"),
    ({"starts": [1.0, 2.0]}, ValueError, "starts must be an array with a row for each start, got one of shape (2,)"),
    ({"starts": [[1.0], [np.nan]]}, ValueError, "starts must be finite, which start 1 is not"),
    ({"starts": STARTS, "clip_norm": 1.0}, ValueError, "starts must not depend on each other, but steps of Adam"),
    ({"starts": STARTS, "method": "prodigy"}, ValueError, "starts must not depend on each other, but steps of Prodigy"),
    ({"starts": STARTS, "bounds": [(0, 1)] * 3}, ValueError, "bounds must be a pair for each of 2 variables"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), POPULATIONS, ids=str)
def test_starts_are_checked(arguments, error, words):
    with refused(error, words):
        fastopt.Solver(**arguments)
    solver = fastopt.Solver(starts=STARTS)
    solver.ask()
    with refused(ValueError, "tell must give a value for each of 4 starts, got an array of shape ()"):
        solver.tell(1.0, STARTS)
