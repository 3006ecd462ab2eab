"""What cases have in common: each is run by all ranks of a communicator, and must not raise on any of them."""

import os
import tempfile

import numpy as np

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


def sum_of(grads_of, comm):
    """The sums of all ranks' gradients in the order of the ranks."""
    every = [grads_of(rank) for rank in range(comm.size)]
    return [np.add.reduce([grads[i] for grads in every], axis=0) for i in range(len(every[0]))]


def path_of(comm):
    return os.path.join(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None), "run.npz")


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
