"""Data-parallel training: ``mpiexec -n 4 python examples/mpi/digits.py`` trains one network on handwritten digits by all ranks.

Each rank computes the gradient of its share of every minibatch; the network is the one of ``python -m fastopt demo``.
"""

import argparse
import time

import matplotlib as mpl
import numpy as np
from mpi4py import MPI
from threadpoolctl import threadpool_limits

import fastopt
import fastopt.mpi
from fastopt.commands.demo import network
from fastopt.commands.demo.digits import BATCH, Digits


def main() -> None:
    """Train, and draw what came out."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--out", default="digits.png")
    given = arguments.parse_args()

    comm = MPI.COMM_WORLD
    fastopt.set_num_threads(1)  # the ranks have the cores
    problem = Digits(seed=0)
    params = problem.start()
    grads = params.like()
    opt = fastopt.mpi.replicated(fastopt.AdamW, params, comm, lr=2e-3, weight_decay=0.01)

    share, count = BATCH // comm.size, len(problem.labels)
    losses, scores, begin = [], [], time.perf_counter()
    with threadpool_limits(1):
        for epoch in range(given.epochs):
            order = np.random.default_rng(epoch).permutation(count)  # the same on all ranks
            total = 0.0
            for first in range(0, count - BATCH + 1, BATCH):
                own = order[first + share * comm.rank :][:share]
                total += network.loss_and_gradient(params.tree, problem.images[own], problem.labels[own], grads.tree)
                opt.step(grads)  # with the mean of all ranks' gradients
            losses.append(comm.allreduce(total) / comm.size / (count // BATCH))
            scores.append(problem.score(params))
    seconds = time.perf_counter() - begin
    fastopt.mpi.check_synced(opt)

    if comm.rank == 0:
        speed = given.epochs * (count // BATCH) * share * comm.size / seconds
        print(f"{comm.size} ranks: {scores[-1]:.1%} of the test images recognized, {speed:,.0f} images a second")
        mpl.use("Agg")
        from matplotlib import pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
        left.semilogy(losses)
        left.set(xlabel="epoch", ylabel="training loss")
        right.plot(np.array(scores) * 100)
        right.set(xlabel="epoch", ylabel="test images recognized, %", title=f"{comm.size} ranks, {speed:,.0f} images/s")
        figure.savefig(given.out)


if __name__ == "__main__":
    main()
