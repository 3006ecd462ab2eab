"""Decomposed inversion: ``mpiexec -n 4 python examples/mpi/inversion.py`` takes the blur from an image, whose rows are shared.

The blur is some steps of diffusion. For each of them a rank needs one row of both its neighbours, the halo, which it gets by
messages of its own; the optimizer exchanges nothing but the norm of the gradient.
"""

import argparse
import time

import matplotlib as mpl
import numpy as np
from mpi4py import MPI

import fastopt
import fastopt.mpi


def blurred(u: np.ndarray, comm: MPI.Comm, times: int) -> np.ndarray:
    """Rows of an image after some steps of diffusion, with zeros around the image. The blur is its own adjoint."""
    above, below = comm.rank - 1 if comm.rank else MPI.PROC_NULL, comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL
    padded = np.zeros((u.shape[0] + 2, u.shape[1] + 2))
    padded[1:-1, 1:-1] = u
    for _ in range(times):
        comm.Sendrecv(padded[1], above, recvbuf=padded[-1], source=below)
        comm.Sendrecv(padded[-2], below, recvbuf=padded[0], source=above)
        inner = padded[1:-1, 1:-1]
        neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        padded[1:-1, 1:-1] = 0.5 * inner + 0.125 * neighbours
    return padded[1:-1, 1:-1].copy()


def picture(size: int) -> np.ndarray:
    """Some discs and a bar."""
    y, x = np.mgrid[0:size, 0:size] / size
    discs = [(0.3, 0.3, 0.15, 1.0), (0.65, 0.7, 0.2, 0.6), (0.6, 0.3, 0.05, 0.8)]
    image = sum(height * ((y - a) ** 2 + (x - b) ** 2 < r * r) for a, b, r, height in discs)
    return np.minimum(image + 0.9 * (abs(x - y - 0.35) < 0.02), 1.0)


def main() -> None:
    """Invert, and draw what came out."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--out", default="inversion.png")
    given = arguments.parse_args()

    comm = MPI.COMM_WORLD
    fastopt.set_num_threads(1)  # the ranks have the cores
    truth = np.array_split(picture(given.size), comm.size)[comm.rank]
    data = blurred(truth, comm, 8) + 0.002 * np.random.default_rng(comm.rank).standard_normal(truth.shape)

    u = np.zeros(truth.shape)
    opt = fastopt.mpi.owned(fastopt.Adam, u, comm, lr=0.05, bounds=(0, 1), clip_norm=10.0)
    misfits, begin, stepping = [], time.perf_counter(), 0.0
    for _ in range(given.steps):
        residual = blurred(u, comm, 8) - data
        gradient = blurred(residual, comm, 8)
        misfits.append(comm.allreduce(float(np.square(residual).sum())))
        before = time.perf_counter()
        opt.step(gradient)
        stepping += time.perf_counter() - before
    seconds = time.perf_counter() - begin
    fastopt.mpi.check_synced(opt)

    found, seen = comm.gather(u), comm.gather(data)
    if comm.rank == 0:
        shares = f"{given.steps / seconds:.0f} steps a second, {stepping / seconds:.0%} of the time in the optimizer"
        error = np.abs(np.concatenate(found) - picture(given.size)).mean()
        print(f"{comm.size} ranks: mean error {error:.4f}, {shares}")
        mpl.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
        for axis, rows, title in ((axes[0], seen, "data"), (axes[1], found, "recovered")):
            axis.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=1)
            axis.set(title=title, xticks=[], yticks=[])
            for edge in np.cumsum([len(part) for part in rows])[:-1]:
                axis.axhline(edge - 0.5, linewidth=0.5)
        axes[2].semilogy(misfits)
        axes[2].set(xlabel="step", ylabel="misfit", title=shares.replace(", ", "\n"))
        figure.savefig(given.out)


if __name__ == "__main__":
    main()
