"""Minimizations by several ranks, each with variables of its own."""

import numpy as np

import fastopt
from tests.mpi.ranks import at_odds, case, error_of


class Bowl:
    """A sum over all ranks of squares, each rank with another number of variables, and stiffer ones."""

    def __init__(self, comm):
        self.comm, self.calls = comm, 0
        self.stiffness = np.linspace(1.0, 1.0 + comm.rank, 3 * comm.rank + 2)

    def __call__(self, x):
        self.calls += 1
        return self.comm.allreduce(float((self.stiffness * (x - 1) ** 2).sum())), 2 * self.stiffness * (x - 1)


@case
def minimizations_end_at_the_same_step(comm):
    for options in (
        {"gtol": 1e-3},
        {"gtol": None, "xtol": 1e-4, "clip_norm": 0.5},
        {"gtol": None, "ftol": 1e-6},
        {"gtol": None, "patience": 5, "ftol": 1e-4, "best": True, "x_scale": "auto"},
        {"gtol": 0, "maxiter": 30},
        {"gtol": 0, "time_limit": 0.1, "maxiter": 10**6},
    ):
        bowl = Bowl(comm)
        options = {"lr": 0.1, **options}
        found = fastopt.minimize(bowl, np.zeros(bowl.stiffness.size), jac=True, options=options, comm=comm)
        ended = {(found.nit, found.status, found.fun, found.message, bowl.calls) for found, bowl in [(found, bowl)]}
        assert set().union(*comm.allgather(ended)) == ended, options
        if options["gtol"] == 1e-3:
            assert found.success
            assert max(comm.allgather(float(np.abs(found.jac).max()))) <= 1e-3
            whole = np.concatenate(comm.allgather(bowl.stiffness))
            alone = fastopt.minimize(
                lambda x, whole=whole: (float((whole * (x - 1) ** 2).sum()), 2 * whole * (x - 1)),
                np.zeros(whole.size),
                jac=True,
                options=options,
            )
            assert alone.nit == found.nit


@case
def one_rank_ends_the_minimization_of_all(comm):
    last, bowl = comm.rank == comm.size - 1, Bowl(comm)
    x0 = np.zeros(bowl.stiffness.size)

    calls = []

    def stops(x):
        calls.append(0)
        return last and len(calls) == 3

    for callback in (stops, stops if last else None):
        calls.clear()
        found = fastopt.minimize(bowl, x0, jac=True, callback=callback, comm=comm, options={"lr": 0.1})
        assert (found.nit, found.status) == (3, 99)

    def local(x):  # with no message of its own, so that nobody else waits in one
        if last and x[0] > 0.2:
            raise OSError("the mesh is torn")
        return 0.0, x - 1

    error = error_of(fastopt.minimize, local, x0, jac=True, comm=comm, options={"lr": 0.1})
    assert "the mesh is torn" in str(error), error
    assert isinstance(error, OSError) if last else f"rank {comm.size - 1}" in str(error)

    def odd(x):
        return 0.0, np.where(x > 0.2, np.nan, x - 1) if last else x - 1

    far = np.where(x0 == 0, 1e200 if last else 1.0, 0.0)  # from which a step of one rank leads to infinity
    with np.errstate(all="ignore"):
        options = {"lr": 1e200, "nonfinite": "skip", "maxiter": 3}
        found = fastopt.minimize(lambda x: (0.0, -far), x0, method="sgd", jac=True, comm=comm, options=options)
    assert found.status == 5
    found = fastopt.minimize(odd, x0, jac=True, comm=comm, options={"lr": 0.1})
    assert found.status == 5
    assert "of the gradient is nan" in found.message
    assert len(set(comm.allgather((found.nit, found.message)))) == 1
    assert np.all(np.isfinite(found.x))
    error = error_of(fastopt.minimize, odd, x0, jac=True, comm=comm, options={"lr": 0.1, "nonfinite": "raise"})
    assert isinstance(error, ValueError)
    assert "of the gradient is nan" in str(error)


@case
def minimizations_that_ranks_can_not_share_are_refused(comm):
    for options, words in [
        ({"noisy": True}, "noisy is not for several ranks"),
        ({"history": True}, "history is not for several ranks"),
        ({"g_scale": "auto"}, "g_scale must be a number"),
        ({"starts": np.ones((2, 3))}, "starts are not for several ranks"),
    ]:
        start = {} if "starts" in options else {"x0": np.zeros(3)}
        assert words in str(error_of(fastopt.Solver, **start, comm=comm, **options))
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), comm=comm, gtol=1e-3 * (1 + odd)))
    assert all("gtol must be the same on all ranks" in error for error in errors)
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), comm=comm, lr=1e-3 * (1 + odd)))
    assert all("lr of group 0" in error for error in errors)
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), bounds=[(0, 1)] * (3 + odd), comm=comm))
    assert all("bounds" in error for error in errors), errors
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), callback=3 if odd else None, comm=comm))
    assert all("callback must be callable" in error for error in errors), errors
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), state=3 if odd else None, comm=comm))
    assert all("state must be what a result has" in error for error in errors), errors
    errors = at_odds(comm, lambda odd: fastopt.Solver(np.zeros(3), "newton" if odd else "adam", comm=comm))
    assert all("newton" in error for error in errors), errors
    for odd, words in [({"fun": 3}, "fun must be callable"), ({"options": 3}, "options"), ({"jac": None}, "jac must")]:
        usual = {"fun": np.sum, "x0": np.zeros(3), "jac": True, "comm": comm}
        errors = at_odds(comm, lambda is_odd, odd=odd, usual=usual: fastopt.minimize(**usual | (odd if is_odd else {})))
        assert all(words in error for error in errors), errors
    for jac in (None, "3-point"):
        assert "jac must give the gradient" in str(error_of(fastopt.minimize, np.sum, np.zeros(3), jac=jac, comm=comm))
