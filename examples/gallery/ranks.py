"""What a replicated step of Adam takes by MPI, and of what, by the model of `bench.mpi_model`, and what it took.

``python examples/gallery/ranks.py ranks.png`` draws the picture.
"""

import dataclasses
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from bench.mpi_model import Machine, model  # noqa: E402  found through the line above

CLUSTER = Machine(link=12.5e9, latency=2e-6, memory=10e9)  # of each rank: bytes a second, seconds, bytes a second
PARTS = {
    "update of a shard": ("update",),
    "gradients to shards, sums": ("gradients", "sums"),
    "parameters to all": ("parameters",),
}

# On two cores of one machine, with 32 million parameters: its constants, and what `bench.mpi` measured by ranks, in ms.
MACHINE = Machine(link=3.4e9, latency=1e-6, memory=15e9)
MEASURED = {2: (20.9, 51.0, 21.3), 4: (16.4, 71.0, 29.2)}


def parts(parameters, ranks, machine):
    """Seconds of each part of a step, by the model."""
    of_step = dataclasses.asdict(model(parameters, ranks, machine))
    return [sum(of_step[name] for name in names) for names in PARTS.values()]


def draw(out, counts=40):
    """Write the picture to a file."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), dpi=100, layout="constrained", width_ratios=(2, 3))
    bars = {}
    for ranks, measured in MEASURED.items():
        bars[f"{ranks} ranks,\nmeasured"] = measured
        bars[f"{ranks} ranks,\nmodel"] = [1e3 * each for each in parts(32_000_000, ranks, MACHINE)]
    heights, below = np.array(list(bars.values())).T, 0
    for height in heights:
        left.bar(list(bars), height, bottom=below, alpha=0.8)
        below = below + height
    left.tick_params("x", labelsize=7)
    left.set_ylabel("milliseconds a step")
    left.set_title("32 million parameters, two cores", fontsize=10)
    ranks = np.unique(np.geomspace(1, 10_000, counts).astype(int))
    right.stackplot(ranks, *np.array([parts(1_000_000_000, int(p), CLUSTER) for p in ranks]).T, labels=list(PARTS), alpha=0.8)
    right.set(xscale="log", xlim=(1, 10_000), xlabel="ranks", ylabel="seconds a step", ylim=(0, 3.2))
    right.set_title("a billion parameters, a cluster: computed", fontsize=10)
    right.legend(fontsize=8, frameon=False, reverse=True)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
