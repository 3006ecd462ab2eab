"""What a replicated step of Adam takes by MPI, and of what, by the model of `bench.mpi_model`: computed, not measured.

``python examples/gallery/ranks.py ranks.png`` draws the picture.
"""

import dataclasses
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from bench.mpi_model import Machine, model  # noqa: E402  found through the line above

PARAMETERS = 1_000_000_000
CLUSTER = Machine(link=12.5e9, latency=2e-6, memory=10e9)  # of each rank: bytes a second, seconds, bytes a second
PARTS = ("update", "sums", "gradients", "parameters")


def draw(out, counts=40):
    """Write the picture to a file."""
    ranks = np.unique(np.geomspace(1, 10_000, counts).astype(int))
    times = [dataclasses.asdict(model(PARAMETERS, int(p), CLUSTER)) for p in ranks]
    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=100, layout="constrained")
    labels = ("update of a shard", "sums", "gradients to their shards", "parameters to all")
    axes.stackplot(ranks, *([each[part] for each in times] for part in PARTS), labels=labels, alpha=0.8)
    axes.set(xscale="log", xlim=(1, 10_000), xlabel="ranks", ylabel="seconds a step", ylim=(0, 3.2))
    axes.set_title(f"Adam, {PARAMETERS:,} parameters of float32", fontsize=10)
    axes.legend(fontsize=8, frameon=False, reverse=True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
