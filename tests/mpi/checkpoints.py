"""State dicts, checkpoints and states in files, of several ranks."""

import contextlib
import os

import numpy as np
import pytest
from mpi4py import MPI

import fastopt
from fastopt import mpi
from tests.disks import disk_of
from tests.mpi.ranks import at_odds, case, error_of, numbers, path_of, sum_of


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
    for key, value, words in [
        ("groups", [], r"state_dict\['groups'\] must have length 1, got 0"),
        ("state", [], r"state_dict\['state'\] must be a mapping, got list"),
        ("state", {"m": None}, r"state_dict\['state'\]"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            shared.load_state_dict(alone.state_dict() | {key: value})


@case
def replicated_checkpoints_go_on_with_any_number_of_ranks(comm):
    path, epoch = path_of(comm), np.array(7)
    opt = mpi.replicated(fastopt.Adam, numbers(1), comm, ema_decay=0.9)
    opt.step(numbers(2))
    mpi.save(path, opt, comm, epoch=epoch, keep_previous=True)
    opt.step(numbers(3))
    mpi.save(path, opt, comm, epoch=epoch + comm.rank, keep_previous=True)
    opt.step(numbers(4))
    with disk_of(100):
        assert "File too large" in str(error_of(mpi.save, path, opt, comm))
    assert "/proc/run.npz" in str(error_of(mpi.save, "/proc/run.npz", opt, comm))
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

        def save(odd):
            with disk_of(100) if odd else contextlib.nullcontext():
                mpi.save(path, opt, comm)

        assert all("File too large" in error for error in at_odds(comm, save))
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
