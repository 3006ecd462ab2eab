"""Points that are larger than the caches: copied in a pass of their own, with the same results as small ones."""

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.arrays.layout import parts
from fastopt.minimization import points
from tests.table import assert_same_bits

SIZE = 5


@pytest.fixture(params=["small", "large"])
def is_large(request, monkeypatch):
    """Whether points go the way of large ones."""
    if request.param == "large":
        monkeypatch.setattr(points, "LARGE_BYTES", 0)
    return request.param == "large"


def started(dtype=np.float64, **options):
    return fastopt.Solver(np.linspace(-1, 1, SIZE).astype(dtype), lr=0.05, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_large_points_go_the_way_of_small_ones(dtype, monkeypatch):
    results = []
    for least in (points.LARGE_BYTES, 0):
        monkeypatch.setattr(points, "LARGE_BYTES", least)
        solver = started(dtype, maxiter=20)
        while not solver.done:
            x = solver.ask()
            solver.tell(None, x - 3)
        results.append(solver.result())
    assert_same_bits(parts(results[0].x), parts(results[1].x))
    assert results[0].nit == results[1].nit == 20


def test_who_keeps_a_large_point_keeps_it_and_may_write_to_it(monkeypatch):
    monkeypatch.setattr(points, "LARGE_BYTES", 0)
    solver = fastopt.Solver(np.zeros(SIZE), "sgd", lr=1.0, maxiter=12)
    kept = []
    while not solver.done:
        x = solver.ask()
        np.testing.assert_array_equal(x, solver.nit)
        view = solver.ask()[1:]
        kept.append((x, view, solver.nit))
        x *= -1.0
        solver.tell(None, -np.ones(SIZE))
    for x, view, nit in kept:
        np.testing.assert_array_equal(x, -nit)
        np.testing.assert_array_equal(view, nit)


def test_an_array_that_its_owner_has_locked_does_not_come_back(is_large):
    size = points.SMALL + 1  # larger ones are made of memory that is used again
    solver = fastopt.Solver(np.zeros(size), "sgd", lr=1.0, maxiter=5)
    while not solver.done:
        x = solver.ask()
        assert x.flags.writeable
        assert (x == solver.nit).all()
        x.setflags(write=False)
        solver.tell(None, -np.ones(size))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["value", "gradient"])
def test_it_goes_back_to_the_last_finite_point_whatever_was_written_to_it(is_large, what, wrong):
    solver, seen = started(maxiter=20), []
    while not solver.done:
        x = solver.ask()
        seen.append(x.copy())
        g = x - 3
        x[...] = 100.0
        if len(seen) == 4:
            if what == "gradient":
                g[SIZE - 1] = wrong
            solver.tell(wrong if what == "value" else 1.0, g)
        else:
            solver.tell(1.0, g)
    assert len(seen) == 5
    assert_same_bits(seen[4], seen[2])
    result = solver.result()
    assert result.status == 5
    assert result.nit == 2
    assert_same_bits(result.x, seen[2])


def test_a_point_that_is_not_finite_is_found(is_large):
    solver = fastopt.Solver(np.zeros(SIZE), "sgd", lr=1e308, maxiter=20)
    solver.ask()
    solver.tell(0.0, np.full(SIZE, -10.0))
    assert np.isinf(solver.ask()).all()
    solver.tell(0.0, np.ones(SIZE))  # which says nothing of it
    assert "element 0 of x is inf" in solver.message
    np.testing.assert_array_equal(solver.ask(), 0.0)


def test_gradients_of_other_kinds_are_looked_at(is_large):
    for g in (np.ones(SIZE, np.float32), np.ones(2 * SIZE)[::2], [1.0] * SIZE):
        solver = started(maxiter=20)
        solver.ask()
        solver.tell(None, g)
        assert solver.nit == 1
        assert not solver.done
        solver.ask()
        g = np.array(g)
        g[1] = np.nan
        solver.tell(None, g)
        assert "element 1 of the gradient is nan" in solver.message


def test_gradients_whose_products_are_too_large_are_finite(is_large):
    solver = fastopt.Solver(np.full(SIZE, 1e200), "sgd", lr=1.0, maxiter=2)
    for _ in range(2):
        solver.ask()
        solver.tell(None, np.full(SIZE, 1e200))
    assert solver.nit == 2
    assert solver.result().status is None


def test_large_points_are_resumed_with_the_same_bits(is_large):
    def run(steps, **options):
        solver = started(maxiter=steps, best=True, **options)
        if "state" in options:
            solver = fastopt.Solver(options["state"]["x"], lr=0.05, maxiter=steps, best=True, **options)
        while not solver.done:
            x = solver.ask()
            solver.tell(rosen(x), rosen_der(x))
        return solver.result()

    whole, first = run(30), run(10)
    assert_same_bits(run(20, state=first.state).x, whole.x)
