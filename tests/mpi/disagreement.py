"""Ranks that disagree, or of which one fails: an error on all of them."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mpi4py import MPI

import fastopt
from fastopt import mpi, schedules
from fastopt.mpi.sums import InRankOrder
from tests.mpi.ranks import at_odds, case, error_of


@case
def ranks_that_disagree_get_an_error_on_all(comm):
    w, failure = np.ones(3000), f"rank {comm.size - 1} has failed; TypeError"

    def with_rate(make, odd):
        make(fastopt.Adam, w.copy(), comm, lr=0.1 + odd)

    def with_betas(make, odd):
        make(fastopt.Adam, w.copy(), comm, betas=(0.5, 0.5 + odd / 4))

    def with_schedule(make, odd):
        make(fastopt.Adam, w.copy(), comm, lr=schedules.Cosine(0.1, 10 + odd))

    def of_class(make, odd):
        make(fastopt.SGD if odd else fastopt.Adam, w.copy(), comm)

    def with_argument(make, odd):
        make(fastopt.Adam, w.copy(), comm, **({"beta": 1} if odd else {}))

    for make in (mpi.owned, mpi.replicated):
        for words, function in [
            ("lr of group 0", with_rate),
            ("betas of group 0", with_betas),
            ("lr of group 0", with_schedule),
            ("the class", of_class),
            (failure, with_argument),
        ]:
            errors = at_odds(comm, functools.partial(function, make))
            assert all(words in error or "no argument 'beta'" in error for error in errors), errors
    for words, function in [
        ("params must be the same", lambda odd: mpi.replicated(fastopt.Adam, np.ones(3000 + odd), comm)),
        ("the checksum of params", lambda odd: mpi.replicated(fastopt.Adam, w + odd, comm)),
        ("the names of the arrays", lambda odd: mpi.replicated(fastopt.Adam, dict.fromkeys("ba" if odd else "ab", w), comm)),
    ]:
        assert all(words in error for error in at_odds(comm, function)), at_odds(comm, function)


@case
def a_step_that_fails_on_one_rank_fails_on_all(comm):
    g = np.ones(3000)
    wrong = [
        ("shape", lambda opt, odd: opt.step(g[:7] if odd else g)),
        ("lr must be", lambda opt, odd: opt.step(g, lr="much" if odd else 0.5)),
        ("grad", lambda opt, odd: opt.step(None if odd else g)),
        ("scale", lambda opt, odd: opt.step(g, np.nan if odd else 1.0)),
    ]
    for make, options in [(mpi.owned, {"clip_norm": 1.0}), (mpi.replicated, {}), (mpi.replicated, {"clip_norm": 1.0})]:
        opt = make(fastopt.Adam, w := np.ones(3000), comm, **options)
        opt.step(g)
        before = w.copy()
        for words, call in wrong:
            errors = at_odds(comm, lambda odd, opt=opt, call=call: call(opt, odd))
            assert all(f"rank {comm.size - 1}" in error for error in errors[:-1]), errors
            assert not errors or any(words in error for error in errors), errors
            assert opt.step_count == 1
            assert np.array_equal(w, before)
        opt.step(g)
        mpi.check_synced(opt)


@case
def a_schedule_that_fails_on_one_rank_ends_the_step_of_all(comm):
    def rate(step):
        if step == 1 and comm.rank == comm.size - 1:
            raise OSError("no more rates")
        return 0.5

    for make, options in [(mpi.owned, {"clip_norm": 1.0}), (mpi.replicated, {}), (mpi.replicated, {"clip_norm": 1.0})]:
        opt = make(fastopt.SGD, np.ones(3000), comm, lr=rate, **options)
        opt.step(np.ones(3000))
        errors = at_odds(comm, lambda odd, step=opt.step: step(np.ones(3000)))
        assert all("no more rates" in error for error in errors), errors


@case
def a_gradient_that_is_not_finite_on_one_rank(comm):
    for make in (mpi.owned, mpi.replicated):
        opt = make(fastopt.Adam, np.ones(3000), comm, nonfinite="skip")
        opt.step(np.full(3000, np.nan if comm.rank == comm.size - 1 else 1.0))
        assert (opt.skipped_steps, opt.step_count) == (1, 0)
        opt = make(fastopt.Adam, np.ones(3000), comm, nonfinite="raise")
        error = error_of(opt.step, np.full(3000, np.nan if comm.rank == comm.size - 1 else 1.0))
        assert isinstance(error, ValueError)
        assert "must be finite" in str(error)


@case
def hyperparameters_that_come_apart_are_found(comm):
    opt = mpi.replicated(fastopt.Adam, np.ones(3000), comm)
    opt.lr = 0.5 if comm.rank == comm.size - 1 else 0.25
    assert all("lr of group 0" in error for error in at_odds(comm, lambda odd: opt.step(np.ones(3000))))
    assert all("lr of group 0" in error for error in at_odds(comm, lambda odd: mpi.check_synced(opt)))
    opt.lr = 0.5
    assert all("lr must be the same" in error for error in at_odds(comm, lambda odd: opt.step(np.ones(3000), lr=0.5 + odd)))
    opt.step(np.ones(3000))
    opt.params[7] += comm.rank
    assert all("the checksum of params" in error for error in at_odds(comm, lambda odd: mpi.check_synced(opt)))


@case
def options_of_owned_parts_are_compared_in_the_messages_of_a_step(comm):
    g = np.ones(3000)
    for words, change in [
        ("clip_norm must be the same", lambda opt, odd: setattr(opt, "clip_norm", 1.0 + odd)),
        ("lr of group 0 must be the same", lambda opt, odd: setattr(opt, "lr", 0.5 + odd)),
        ("the learning rate of group 0 must", lambda opt, odd: setattr(opt, "lr", lambda step: 0.5 + odd)),
        ("betas of group 0 must be the same", lambda opt, odd: opt.param_groups[0].update(betas=(0.5, 0.5 + odd / 4))),
        ("nonfinite must be the same", lambda opt, odd: setattr(opt, "nonfinite", "raise" if odd else "skip")),
        ("frozen of group 0 must", lambda opt, odd: [each.update(frozen=i != odd) for i, each in enumerate(opt.param_groups)]),
        ("step_count must be the same", lambda opt, odd: opt.load_state_dict(opt.state_dict() | {"step_count": 7 + odd})),
    ]:
        groups = [{"params": (w := np.ones(3000))}, {"params": np.ones(3), "frozen": True}]
        opt = mpi.owned(fastopt.Adam, groups, comm, clip_norm=2.0)
        opt.step([g, None])
        before = w.copy()
        change(opt, comm.rank == comm.size - 1)
        for _ in range(2):
            errors = at_odds(comm, lambda odd, opt=opt: opt.step([g, np.ones(3)]) if comm.size > 1 else None)
            assert all("ValueError" in error and words in error for error in errors), errors
        assert np.array_equal(w, before)
        change(opt, 0)
        opt.step([g, None])
        mpi.check_synced(opt)


@case
def another_method_on_one_rank_is_an_error_on_all(comm):
    g, sums = np.ones(3000), InRankOrder(comm)
    for opt, words in [
        (mpi.owned(fastopt.Adam, np.ones(3000), comm, clip_norm=1.0), "the method that is called must be the same"),
        (mpi.replicated(fastopt.Adam, np.ones(3000), comm), "must be the same"),
        (fastopt.Adam(np.ones(3000), clip_norm=1.0, reduce=lambda array: sums(array)), "has called another method"),
    ]:
        errors = at_odds(comm, lambda odd, opt=opt: (opt.norm if odd and comm.size > 1 else opt.step)(g))
        assert all(words in error for error in errors), errors
        opt.step(g)
        mpi.check_synced(opt, comm)
        opt.step(g)


@case
def a_schedule_that_asks_for_the_norm_leaves_the_step_its_messages(comm):
    g = np.ones(3000)

    def rate(step):
        if step == 1 and opt.norm(g) and comm.rank == comm.size - 1:
            raise OSError("no more rates")
        return 0.5 / (step + 1)

    opt = mpi.owned(fastopt.Adam, np.ones(3000), comm, lr=rate, clip_norm=1.0)
    opt.step(g)
    errors = at_odds(comm, lambda odd: opt.step(g))
    assert all("no more rates" in error for error in errors), errors
    np.testing.assert_allclose(opt.norm(g), np.sqrt(3000 * comm.size))  # though the rates are not the same now


@case
def an_interruption_between_messages_ends_the_step_of_all(comm):
    opt = mpi.owned(fastopt.LAMB, w := np.ones(3000), comm, clip_norm=1.0)
    add, is_last = opt._whole["reduce"], comm.rank == comm.size - 1

    def interrupted(array):
        add(array)
        if is_last:
            raise KeyboardInterrupt

    opt._stepping._allreduce._add = interrupted
    with pytest.raises(KeyboardInterrupt if is_last else RuntimeError, match=None if is_last else "has failed"):
        opt.step(np.ones(3000))
    assert (opt.step_count, w.min(), w.max()) == (0, 1.0, 1.0)


@case
def calls_come_from_the_thread_that_began_unless_mpi_allows_others(comm):
    level = MPI.Query_thread
    whole = mpi.replicated(fastopt.SGD, np.zeros(3), comm)
    part = mpi.owned(fastopt.SGD, np.zeros(3), comm, clip_norm=1.0)
    calls = [whole.step, whole.accumulate, whole.norm, part.step, part.norm]
    with ThreadPoolExecutor(1) as pool:
        try:
            MPI.Query_thread = lambda: MPI.THREAD_SERIALIZED
            for call in calls:
                error = error_of(pool.submit(call, np.ones(3)).result)
                assert isinstance(error, RuntimeError)
                assert "MPI_THREAD_MULTIPLE" in str(error)
        finally:
            MPI.Query_thread = level
        if level() == MPI.THREAD_MULTIPLE:
            for call in calls:
                pool.submit(call, np.ones(3)).result()
    assert whole.step_count == part.step_count == (level() == MPI.THREAD_MULTIPLE)
