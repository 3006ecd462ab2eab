"""Steps of parts that ranks own."""

import copy
import itertools

import ml_dtypes
import numpy as np

import fastopt
from fastopt import mpi, schedules
from fastopt.mpi.sums import InRankOrder
from tests.mpi.ranks import at_odds, case, cut, error_of, flat, numbers

OWNED = [
    (fastopt.Adam, {}),
    (fastopt.Adam, {"clip_norm": 0.5, "nonfinite": "raise"}),
    (fastopt.LAMB, {"clip_norm": 0.5}),
    (fastopt.DoG, {}),
    (fastopt.Prodigy, {}),
    (fastopt.AdamW, {"cautious": True}),
    (fastopt.SGD, {"momentum": 0.9, "lr": schedules.Cosine(0.1, 10), "ema_decay": 0.5}),
]


@case
def owned_parts_move_as_the_whole(comm):
    for cls, options in OWNED:
        whole = cls(flat(numbers(1)), **options)
        part = mpi.owned(cls, [cut(array, comm) for array in flat(numbers(1))], comm, **options)
        for seed in range(3):
            whole.step(flat(numbers(10 + seed)))
            part.step([cut(g, comm) for g in flat(numbers(10 + seed))])
        for own, expected in zip(part.params, whole.params, strict=True):
            np.testing.assert_allclose(own, cut(expected, comm), rtol=1e-12, atol=1e-14)
        assert len(set(comm.allgather(part.grad_norm))) == 1
        mpi.check_synced(part)


@case
def owned_parts_have_the_noise_of_the_whole(comm):
    options = {"rounding": "stochastic", "state_dtype": "bfloat16", "seed": 3, "lr": 0.1}
    arrays, grads = (flat(numbers(seed, ml_dtypes.bfloat16)) for seed in (1, 2))
    whole = fastopt.Adam([array.copy() for array in arrays], **options)
    part = mpi.owned(fastopt.Adam, [cut(array, comm) for array in arrays], comm, **options)
    for _ in range(2):
        whole.step(grads)
        part.step([cut(g, comm) for g in grads])
        part.rebind([array.copy() for array in part.params])
    assert all(own.tobytes() == cut(array, comm).tobytes() for own, array in zip(part.params, whole.params, strict=True))
    uneven = mpi.owned(fastopt.SGD, [np.zeros(3 + comm.rank)] * (comm.rank > 0) + [np.zeros(2)], comm)
    uneven.add_param_group({"params": np.zeros(1)})
    places = [(p.first, p.first + p.length) for p in uneven._model.parameters]
    assert places[-1][0] == places[-2][1]
    every = sorted(itertools.chain(*comm.allgather(places[:-1])))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(every))


@case
def sums_are_those_in_the_order_of_the_ranks(comm):
    array = np.random.default_rng(comm.rank).standard_normal(5) * 10.0**comm.rank
    expected = np.add.reduce(comm.allgather(array.copy()), axis=0)
    InRankOrder(comm)(array)
    assert np.array_equal(array, expected)


@case
def clipping_is_one_message_a_step(comm):
    lengths, add = [], InRankOrder(comm)

    def counting(array):
        lengths.append(array.nbytes)
        add(array)

    opt = fastopt.Adam(np.ones(1000), clip_norm=1.0, reduce=counting)
    for _ in range(3):
        opt.step(np.ones(1000))
    assert lengths == [56] * 3


def loaded(opt):
    other = fastopt.AdamW(opt.params, nonfinite="raise")
    opt.load_state_dict({**opt.state_dict(), "whole": other.state_dict()["whole"]})


# Options of two groups, and what changes the sums that their steps exchange.
CHANGES = [
    ({}, lambda opt: setattr(opt, "clip_norm", 1.0)),
    ({}, lambda opt: opt.param_groups[1].update(clip_norm=1.0)),
    ({}, lambda opt: setattr(opt, "cautious", True)),
    ({}, loaded),
    ({"clip_norm": 1.0}, lambda opt: setattr(opt, "clip_norm", None)),
    ({"nonfinite": "skip"}, lambda opt: setattr(opt, "nonfinite", "propagate")),
    ({"clip_norm": 1.0}, lambda opt: opt.param_groups[0].update(frozen=True)),
    ({"clip_norm": 1.0}, lambda opt: opt.add_param_group({"params": np.ones(2)})),
]


@case
def no_rank_alone_changes_what_steps_exchange(comm):
    last = comm.rank == comm.size - 1
    for options, change in CHANGES:
        groups = [{"params": np.ones(4)}, {"params": np.ones(3)}]
        opt = copy.copy(mpi.owned(fastopt.AdamW, groups, comm, **options))
        opt.rebind(copy.deepcopy(opt.params))
        grads = [np.ones(4), np.ones(3)]
        opt.step(grads)
        if last:
            change(opt)
        if last or options:  # without messages the others can't know
            error = error_of(opt.step, [np.ones(len(p)) for p in opt.params])
            assert isinstance(error, RuntimeError), error
            assert "check_synced" in str(error), error
            assert last or f"rank {comm.size - 1}" in str(error), error
        assert opt.step_count == 1
        at_odds(comm, lambda odd, opt=opt: mpi.check_synced(opt))
        if not last:
            change(opt)
        mpi.check_synced(opt)
        opt.step([np.ones(len(p)) for p in opt.params])
        assert opt.step_count == 2
        assert len(set(comm.allgather(opt.grad_norm))) == 1


@case
def limits_follow_schedules_and_assignments(comm):
    opt = mpi.owned(fastopt.SGD, w := np.zeros(1), comm, lr=1.0, clip_norm=np.inf)
    for limit in (np.inf, 2.0, 1.0):
        w[:] = 0.0
        opt.clip_norm = limit
        opt.step(np.ones(1))
        np.testing.assert_allclose(w, -min(1.0, limit / np.sqrt(comm.size)))
