"""``mpiexec -n 4 python -m bench.mpi``: a replicated step of Adam, in its parts, against the same written by hand.

By hand is what people write with mpi4py and NumPy: Allreduce of the gradient, and Adam in place on every rank. Times are those
of the slowest rank; all ranks work at the same time, each on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastopt
import fastopt.mpi

Action = Callable[[], Any]


def median_seconds(actions: dict[str, Action], rounds: int, comm: Any) -> dict[str, float]:
    """Of the slowest rank, the actions in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            comm.Barrier()
            begin = time.perf_counter()
            action()
            if turn:
                seconds[name].append(max(comm.allgather(time.perf_counter() - begin)))
            else:
                comm.allgather(0.0)
    return {name: statistics.median(each) for name, each in seconds.items()}


def by_hand(size: int, comm: Any) -> Action:
    """Adam in place after an Allreduce."""
    theta, g, m, v, total, work = (np.ones(size, np.float32) for _ in range(6))
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        comm.Allreduce(g, total)
        np.divide(total, comm.size, out=total)
        np.multiply(m, 0.9, out=m)
        np.multiply(total, 0.1, out=work)
        np.add(m, work, out=m)
        np.multiply(v, 0.999, out=v)
        np.multiply(total, total, out=total)
        np.multiply(total, 0.001, out=total)
        np.add(v, total, out=v)
        np.sqrt(v, out=work)
        np.divide(work, (1 - 0.999**t) ** 0.5, out=work)
        np.add(work, 1e-8, out=work)
        np.divide(m, work, out=work)
        np.multiply(work, 1e-3 / (1 - 0.9**t), out=work)
        np.subtract(theta, work, out=theta)

    return step


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--elements", type=int, default=32_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    from mpi4py import MPI

    comm, size = MPI.COMM_WORLD, given.elements
    fastopt.set_num_threads(1)
    opt = fastopt.mpi.replicated(fastopt.Adam, np.ones(size, np.float32), comm)
    g = np.ones(size, np.float32)
    (shards,) = opt._shards
    (p,) = shards.parameters
    halved = fastopt.mpi.replicated(fastopt.Adam, np.ones(size, np.float32), comm, communication_dtype="bfloat16")
    alone = fastopt.Adam(np.ones(size // comm.size, np.float32))
    actions = {
        "replicated step": lambda: opt.step(g),
        "- gradients to their shards": lambda: shards.reduce_scatter({p: g}),
        "- update of a shard": lambda: opt.shared.step(opt._gradients, 1.0 / comm.size),
        "- parameters to all": shards.all_gather,
        "replicated step, gradients as bfloat16": lambda: halved.step(g),
        "as much work in a plain step": lambda: alone.step(g[: size // comm.size], 1.0 / comm.size),
        "by hand": by_hand(size, comm),
    }
    seconds = median_seconds(actions, given.rounds, comm)
    numbers = np.zeros(7)
    clip = fastopt.mpi.owned(fastopt.Adam, np.ones(1000, np.float32), comm, clip_norm=1.0)
    plain = fastopt.Adam(np.ones(1000, np.float32), clip_norm=1.0)
    small = {
        "owned step with clipping, 1,000 elements": lambda: clip.step(g[:1000]),
        "the same alone": lambda: plain.step(g[:1000]),
        "an Allreduce of 56 bytes": lambda: comm.Allreduce(MPI.IN_PLACE, numbers),
    }
    seconds |= median_seconds(small, 200, comm)
    if comm.rank == 0:
        print(f"{comm.size} ranks, {size:,} elements of float32")
        for name, each in seconds.items():
            print(f"{name:45}{each * 1e3:10.3f} ms")
        print(f"{'by hand / replicated':45}{seconds['by hand'] / seconds['replicated step']:10.2f}")


if __name__ == "__main__":
    main()
