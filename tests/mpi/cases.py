"""What ranks do in the tests: each case is run by all ranks of one ``mpiexec``, and must not raise on any of them.

The main program prints one line of JSON: by case what was raised, with the rank.
"""

import functools
import itertools
import json
import os
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from mpi4py import MPI

import fastopt
from fastopt import mpi, schedules
from fastopt.arrays.flat import array_of
from fastopt.arrays.tree import leaves
from fastopt.mpi import shards
from fastopt.mpi.sums import InRankOrder

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def cut(array, comm):
    """This rank's part of an array; the first rank has none if there are several."""
    parts = max(comm.size - 1, 1)
    rank = comm.rank - (comm.size > 1)
    return np.array_split(array, parts)[rank].copy() if rank >= 0 else array[:0].copy()


def numbers(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((5000,), (40, 3))]


def flat(arrays):
    return [array.reshape(-1) for array in arrays]


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
    assert lengths == [40] * 3


def sum_of(grads_of, comm):
    """The sums of all ranks' gradients in the order of the ranks."""
    every = [grads_of(rank) for rank in range(comm.size)]
    return [np.add.reduce([grads[i] for grads in every], axis=0) for i in range(len(every[0]))]


def nested(arrays):
    return {"W": arrays[1], "deep": [arrays[0]]}


# How parameters come, and how gradients do.
FORMS = {
    "list": (list, list),
    "dict": (nested, nested),
    "flat": (fastopt.flatten, fastopt.flatten),
    "groups": (lambda a: [{"params": a[0], "lr": 0.25}, {"params": [a[1]]}], lambda a: [a[0], [a[1]]]),
}


def arrays_of(params):
    return [array_of(leaf) for _, leaf in leaves(params, "")]


REPLICATED = [
    (fastopt.Adam, {}, np.float32),
    (fastopt.Adam, {"clip_norm": 0.5, "ema_decay": 0.9}, np.float32),
    (fastopt.AdamW, {"lr": schedules.Cosine(0.1, 10), "nonfinite": "skip"}, np.float64),
    (fastopt.LAMB, {}, np.float64),
    (fastopt.Prodigy, {}, np.float32),
    (fastopt.Lion, {"cautious": True}, np.float32),
]


@case
def replicated_steps_are_those_of_one_with_the_mean(comm):
    for cls, options, dtype in REPLICATED:
        for kind, (params, grads) in FORMS.items():
            whole = cls(params(numbers(1, dtype)), **options)
            shared = mpi.replicated(cls, params(numbers(1, dtype)), comm, **options)
            for seed in range(3):
                sums = sum_of(lambda rank, seed=seed, dtype=dtype: numbers(100 * rank + seed, dtype), comm)
                whole.step(grads(sums), scale=1.0 / comm.size)
                shared.step(grads(numbers(100 * comm.rank + seed, dtype)))
            exact = not (options.keys() & {"clip_norm", "nonfinite"}) and cls in (fastopt.Adam, fastopt.AdamW)
            for own, expected in zip(arrays_of(shared.params), arrays_of(whole.params), strict=True):
                if exact:
                    assert np.array_equal(own, expected), (cls, kind)
                np.testing.assert_allclose(own, expected, rtol=1e-4 if dtype == np.float32 else 1e-11, atol=1e-6)
            mpi.check_synced(shared)
            assert shared.step_count == 3


@case
def gradients_move_in_buckets(comm):
    before = shards.BUCKET, shards.LEAST_MESSAGE
    try:
        for shards.BUCKET, shards.LEAST_MESSAGE in [(1, 1024), (3000, 1), before]:
            for make in (list, lambda arrays: arrays[:1], lambda arrays: [arrays[0][:7]]):
                grads = [make(numbers(rank, np.float32)) for rank in range(comm.size)]
                grads[-1][0][:4] = np.nan, np.inf, -np.inf, np.finfo(np.float32).max
                rounded = [[g.astype(ml_dtypes.bfloat16).astype(np.float32) for g in each] for each in grads]
                for sent, dtype in ((grads, None), (rounded, "bfloat16")):
                    sums = [np.add.reduce([each[i] for each in sent]) for i in range(len(grads[0]))]
                    whole = fastopt.SGD([np.zeros_like(g) for g in sums], lr=1.0)
                    whole.step(sums, scale=1 / comm.size)
                    params = [np.zeros_like(g) for g in sums]
                    mpi.replicated(fastopt.SGD, params, comm, lr=1.0, communication_dtype=dtype).step(grads[comm.rank])
                    for own, expected in zip(params, whole.params, strict=True):
                        assert np.array_equal(own, expected, equal_nan=True), (shards.BUCKET, dtype)
    finally:
        shards.BUCKET, shards.LEAST_MESSAGE = before
    error = error_of(mpi.replicated, fastopt.SGD, np.zeros(3), comm, communication_dtype="int8")
    assert "communication_dtype must be None or 'bfloat16', got 'int8'" in str(error)
    errors = at_odds(
        comm, lambda odd: mpi.replicated(fastopt.SGD, np.zeros(3), comm, communication_dtype="bfloat16" if odd else None)
    )
    assert all("communication_dtype" in error for error in errors)


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


@case
def states_of_shards_lie_in_files(comm):
    folder = os.path.dirname(path_of(comm))
    whole = fastopt.Adam(numbers(1), ema_decay=0.9)
    params = numbers(1)
    for begin in (0, 2):
        shared = mpi.replicated(fastopt.Adam, params, comm, ema_decay=0.9, state_path=f"{folder}/states.{comm.rank}")
        assert shared.step_count == begin
        for seed in range(begin, begin + 2):
            whole.step(sum_of(lambda rank, seed=seed: numbers(10 * rank + seed), comm), scale=1 / comm.size)
            shared.step(numbers(10 * comm.rank + seed))
        shared.close()
    assert all(map(np.array_equal, params, whole.params))


@case
def replicated_complex_and_mixed_dtypes_and_orders(comm):
    def make():
        rng = np.random.default_rng(3)
        z = (rng.standard_normal((30, 70)) + 1j * rng.standard_normal((30, 70))).astype(np.complex64, order="F")
        return {"z": z, "w": rng.standard_normal((3, 1000)).astype(np.float32), "x": rng.standard_normal(5), "0d": np.ones(())}

    def grads(rank):
        return {key: (array * (rank + 1)).astype(array.dtype) for key, array in make().items()}

    for options in ({}, {"complex_mode": "modulus"}):
        whole, shared = fastopt.Adam(make(), **options), mpi.replicated(fastopt.Adam, make(), comm, **options)
        for _ in range(2):
            sums = {key: np.add.reduce([np.asarray(grads(rank)[key]) for rank in range(comm.size)]) for key in make()}
            whole.step({key: np.asarray(array) for key, array in sums.items()}, scale=1 / comm.size)
            shared.step(grads(comm.rank))
        for key, array in whole.params.items():
            assert np.array_equal(shared.params[key], array), key
        for name in ("m", "v"):
            state = shared.state_dict()["state"][name]
            for key, array in whole.state_dict()["state"][name].items():
                assert np.array_equal(state[key], array), (name, key)
                assert state[key].dtype == array.dtype


@case
def replicated_numbers_of_16_bits(comm):
    options = {"rounding": "stochastic", "state_dtype": "bfloat16", "seed": 3, "lr": 0.1}
    for dtype in (np.float16, ml_dtypes.bfloat16):
        for more in ({}, {"master_weights": True}):
            for count in (1, 2):
                arrays, g = numbers(1, dtype)[:count], numbers(2, dtype)[:count]
                whole = fastopt.Adam([array.copy() for array in arrays], **options, **more)
                shared = mpi.replicated(fastopt.Adam, arrays, comm, **options, **more)
                for _ in range(3):
                    whole.step([comm.size * each.astype(np.float32) for each in g], scale=1 / comm.size)
                    shared.step(g)
                assert [a.tobytes() for a in shared.params] == [a.tobytes() for a in whole.params], (dtype, more, count)


@case
def replicated_options_with_arrays(comm):
    w = np.linspace(-1, 1, 3000).reshape(30, 100)
    lr, mask, low = np.full(w.shape, 0.1) * np.arange(100), w > -0.5, np.where(w > 0, -0.1, -np.inf)
    options = {"lr": lr, "mask": mask, "bounds": (low, 0.5)}
    whole, shared = fastopt.SGD(w.copy(), **options), mpi.replicated(fastopt.SGD, w.copy(), comm, **options)
    for opt in (whole, shared):
        opt.step(w, scale=2.0)
        opt.lr = 2 * lr
        opt.step(w)
        opt.step(w, lr=lr)
    np.testing.assert_allclose(shared.params, whole.params, rtol=1e-12, atol=1e-14)
    saved, own = shared.state_dict(), whole.state_dict()
    np.testing.assert_equal(saved["groups"], own["groups"])
    other = mpi.replicated(fastopt.SGD, w.copy(), comm)
    other.load_state_dict(own)
    other.params[...] = whole.params
    whole.step(w)
    other.step(w)
    np.testing.assert_allclose(other.params, whole.params, rtol=1e-12, atol=1e-14)


@case
def state_dicts_go_on_with_any_number_of_ranks(comm):
    whole = fastopt.Adam(numbers(1), ema_decay=0.9)
    shared = mpi.replicated(fastopt.Adam, numbers(1), comm, ema_decay=0.9)
    shared.step(numbers(2))
    whole.step(sum_of(lambda rank: numbers(2), comm), scale=1.0 / comm.size)
    np.testing.assert_equal(shared.state_dict(), whole.state_dict())
    alone = mpi.replicated(fastopt.Adam, [array.copy() for array in whole.params], MPI.COMM_SELF, ema_decay=0.9)
    alone.load_state_dict(shared.state_dict())
    for opt in (whole, shared, alone):
        opt.step(numbers(3))
    for opt in (shared, alone):
        for own, expected in zip(opt.params, whole.params, strict=True):
            np.testing.assert_allclose(own, expected, rtol=1e-13)
        with opt.swap_ema(), whole.swap_ema():
            np.testing.assert_allclose(opt.params[0], whole.params[0], rtol=1e-13)
    with pytest.raises((TypeError, ValueError)):
        shared.load_state_dict(fastopt.SGD(numbers(1)).state_dict())
    with pytest.raises(TypeError):
        shared.load_state_dict(None)


def path_of(comm):
    return os.path.join(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None), "run.npz")


@case
def replicated_checkpoints_go_on_with_any_number_of_ranks(comm):
    path, epoch = path_of(comm), np.array(7)
    opt = mpi.replicated(fastopt.Adam, numbers(1), comm, ema_decay=0.9)
    opt.step(numbers(2))
    mpi.save(path, opt, comm, epoch=epoch, keep_previous=True)
    opt.step(numbers(3))
    mpi.save(path, opt, comm, epoch=epoch + comm.rank, keep_previous=True)
    opt.step(numbers(4))
    for ranks in (comm, MPI.COMM_SELF):
        for name, steps in ((path, 2), (path + ".previous", 1)):
            other = mpi.replicated(fastopt.Adam, numbers(9), ranks, ema_decay=0.5)
            mpi.load(name, other, ranks, epoch=epoch)
            assert (other.step_count, int(epoch), other.ema_decay) == (steps, 7, 0.9)
            for seed in range(2 + steps, 5):
                other.step(numbers(seed))
            for own, expected in zip(other.params, opt.params, strict=True):
                np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-14)
    plain = fastopt.Adam(numbers(1), ema_decay=0.9)
    fastopt.load(path, plain)
    assert plain.step_count == 2
    opt.accumulate(numbers(1))
    assert "accumulated" in str(error_of(mpi.save, path, opt, comm))
    plain.accumulate(numbers(1))
    if comm.rank == 0:
        fastopt.save(path, plain)
    comm.Barrier()
    assert "accumulated" in str(error_of(mpi.load, path, opt, comm))
    missing = error_of(mpi.load, path + ".none", opt, comm)
    assert isinstance(missing, FileNotFoundError), missing


@case
def owned_checkpoints_are_of_one_time(comm):
    path = path_of(comm)
    opt = mpi.owned(fastopt.Adam, u := np.full(10 + comm.rank, 1.0), comm, clip_norm=1.0)
    for steps in (1, 2):
        opt.step(u + comm.rank)
        mpi.save(path, opt, comm, rank=np.array(comm.rank))
        comm.Barrier()
        assert len(os.listdir(os.path.dirname(path))) == 1 + comm.size, os.listdir(os.path.dirname(path))
        comm.Barrier()
        rank, other = np.array(-1), mpi.owned(fastopt.Adam, np.zeros(10 + comm.rank), comm)
        mpi.load(path, other, comm, rank=rank)
        assert (other.step_count, int(rank)) == (steps, comm.rank)
        assert np.array_equal(other.params, u)
    if comm.size > 1:
        alone = mpi.owned(fastopt.Adam, np.zeros(10), MPI.COMM_SELF)
        assert f"of {comm.size} ranks" in str(error_of(mpi.load, path, alone, MPI.COMM_SELF))
        errors = at_odds(comm, lambda odd: mpi.save(path, opt, comm, **({"text": np.array("a")} if odd else {})))
        assert all("text must hold numbers" in error for error in errors)
        mpi.load(path, opt, comm)  # the one before is there
        assert opt.step_count == 2
    assert "keep_previous" in str(error_of(mpi.save, path, opt, comm, keep_previous=True))
    for content in ("{}", '{"format": "index of fastopt checkpoints", "token": "0"}', "[" * 10_000):
        comm.Barrier()
        if comm.rank == 0:
            with open(path, "w") as file:
                file.write(content)
        comm.Barrier()
        assert "no index" in str(error_of(mpi.load, path, opt, comm))


@case
def accumulated_gradients_and_norms(comm):
    whole, shared = fastopt.SGD(np.zeros(3000), lr=1.0), mpi.replicated(fastopt.SGD, np.zeros(3000), comm, lr=1.0)
    for seed in (1.0, 3.0):
        whole.accumulate(np.full(3000, seed * (comm.size + 1) / 2))
        shared.accumulate(np.full(3000, seed * (comm.rank + 1)))
    for opt in (whole, shared):
        opt.step()
    np.testing.assert_allclose(shared.params, whole.params)
    assert shared.norm(np.full(3000, comm.rank + 1.0)) == pytest.approx(np.sqrt(3000) * (comm.size + 1) / 2)


@case
def gradients_and_states_of_16_bits(comm):
    halves = [g.astype(np.float16) for g in numbers(2, np.float32)]
    bits = [(g.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for g in halves]  # of bfloat16
    for narrow in (halves, bits):
        wide = [g.astype(np.float32) if g.dtype == np.float16 else (g.astype(np.uint32) << 16).view(np.float32) for g in narrow]
        opts = [mpi.replicated(fastopt.Adam, numbers(1, np.float32), comm, state_dtype=np.float16) for _ in range(2)]
        for _ in range(2):
            opts[0].step(narrow)
            opts[1].step(wide)
        for own, expected in zip(opts[0].params, opts[1].params, strict=True):
            assert np.array_equal(own, expected)
        opts[1].load_state_dict(opts[0].state_dict())
        mpi.check_synced(opts[0])


@case
def frozen_groups(comm):
    shared = mpi.replicated(fastopt.SGD, [{"params": np.ones(3)}, {"params": np.ones(2), "frozen": True}], comm, lr=1.0)
    shared.step([np.ones(3), None])
    assert (shared.params[0].tolist(), shared.params[1].tolist()) == ([0.0] * 3, [1.0] * 2)


def error_of(function, *arguments, **named):
    try:
        function(*arguments, **named)
    except Exception as error:
        return error
    return None


def at_odds(comm, function):
    """The errors of all ranks, of which the last one is at odds with the others; there must be one on each."""
    error = error_of(function, comm.rank == comm.size - 1)
    errors = comm.allgather(f"{type(error).__name__}: {error}")
    if comm.size > 1:
        assert "NoneType: None" not in errors, errors
    return errors if comm.size > 1 else []


@case
def ranks_that_disagree_get_an_error_on_all(comm):
    w, failure = np.ones(3000), f"rank {comm.size - 1} has failed; TypeError"

    def with_rate(make, odd):
        make(fastopt.Adam, w.copy(), comm, lr=0.1 + odd)

    def of_class(make, odd):
        make(fastopt.SGD if odd else fastopt.Adam, w.copy(), comm)

    def with_argument(make, odd):
        make(fastopt.Adam, w.copy(), comm, **({"beta": 1} if odd else {}))

    for make in (mpi.owned, mpi.replicated):
        for words, function in [("lr of group 0", with_rate), ("the class", of_class), (failure, with_argument)]:
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
    for make, options in [(mpi.owned, {"clip_norm": 1.0}), (mpi.replicated, {}), (mpi.replicated, {"clip_norm": 1.0})]:
        opt = make(fastopt.Adam, w := np.ones(3000), comm, **options)
        opt.step(np.ones(3000))
        before = w.copy()
        errors = at_odds(comm, lambda odd, step=opt.step: step(np.ones(7 if odd else 3000)))
        if errors:
            assert all(f"rank {comm.size - 1}" in error and "shape" in error for error in errors[:-1]), errors
            assert opt.step_count == 1
            assert np.array_equal(w, before)
        opt.step(np.ones(3000))
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
def what_is_not_possible_is_refused_with_a_reason(comm):
    for cls, options, words in [
        (fastopt.SGD, {"copy_to": np.ones(3, np.float16)}, "copy_to is not for"),
        (fastopt.SGD, {"zero_grad": True}, "zero_grad is not for"),
        (fastopt.SGD, {"by_name": {"*": {}}}, "by_name is not for"),
        (fastopt.SGD, {"reduce": print}, "reduce is not for"),
        (fastopt.NoisySGD, {}, "not for NoisySGD"),
        (fastopt.Sophia, {}, "not for Sophia"),
        (fastopt.ScheduleFreeSGD, {}, "not for ScheduleFreeSGD"),
        (fastopt.SGD, {"lr": np.ones(4)}, "shape"),
    ]:
        error = error_of(mpi.replicated, cls, np.ones(3), comm, **options)
        assert words in str(error), error
    opt = mpi.replicated(fastopt.SGD, np.ones(3), comm)
    with pytest.raises(AttributeError):
        opt.rebind(np.ones(3))
    with pytest.raises(TypeError):
        __import__("copy").deepcopy(opt)


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
    for jac in (None, "3-point"):
        assert "jac must give the gradient" in str(error_of(fastopt.minimize, np.sum, np.zeros(3), jac=jac, comm=comm))


def main():
    comm, found = MPI.COMM_WORLD, {}
    for name, function in CASES.items():
        error = None
        try:
            function(comm)
        except BaseException:
            error = traceback.format_exc()
        found[name] = [f"rank {rank}: {each}" for rank, each in enumerate(comm.allgather(error)) if each]
    if comm.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
