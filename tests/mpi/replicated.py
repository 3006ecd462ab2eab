"""Steps of parameters that all ranks have."""

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt import mpi, schedules
from fastopt.arrays.flat import array_of
from fastopt.arrays.tree import leaves
from fastopt.mpi import shards
from tests.mpi.ranks import at_odds, case, error_of, numbers, sum_of


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
def averages_leave_the_parameters_whatever_ends_the_block(comm):
    shared = mpi.replicated(fastopt.Adam, w := np.ones(3000), comm, ema_decay=0.9)
    shared.step(np.arange(3000.0))
    before = w.copy()
    for failing in ({comm.size - 1}, range(comm.size)):
        try:
            with shared.swap_ema():
                assert np.count_nonzero(w != before) == 2999
                if comm.rank in failing:
                    raise OSError("no evaluation")
        except OSError:
            assert comm.rank in failing
        assert np.array_equal(w, before)
        shared.state_dict()


@case
def frozen_groups(comm):
    shared = mpi.replicated(fastopt.SGD, [{"params": np.ones(3)}, {"params": np.ones(2), "frozen": True}], comm, lr=1.0)
    shared.step([np.ones(3), None])
    assert (shared.params[0].tolist(), shared.params[1].tolist()) == ([0.0] * 3, [1.0] * 2)


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
