"""``python -m bench.mpi_model``: what a replicated step of Adam takes on so many ranks, by a model and by simulating its ranks.

The model has four constants. Those by default were measured with ``bench.mpi`` on the machine of the docs, where messages move
through shared memory; give those of a cluster's links to see what is to be expected there. The simulation draws how long each
rank's update takes, and lets the slowest of them end the step.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastopt.mpi.shards import BUCKET, LEAST_MESSAGE

STREAMS = 7  # that Adam moves: it reads theta, g, m, v and writes theta, m, v
ITEM = 4  # bytes of float32


@dataclasses.dataclass
class Machine:
    """What a rank has.

    Attributes
    ----------
    link : float
        Bytes a second that it sends, and at the same time receives.
    latency : float
        Seconds of a message.
    memory : float
        Bytes a second that a step moves.
    spread : float
        Standard deviation of the time of an update, as a share of it.
    """

    link: float = 3.4e9
    latency: float = 1e-6
    memory: float = 15e9
    spread: float = 0.1


@dataclasses.dataclass
class Times:
    """Of a step, in seconds."""

    gradients: float
    sums: float
    update: float
    parameters: float

    @property
    def step(self) -> float:
        """All of it, one after the other."""
        return self.gradients + self.sums + self.update + self.parameters

    @property
    def communication(self) -> float:
        """The share of the time in which numbers move between ranks."""
        return (self.gradients + self.parameters) / self.step


def model(elements: int, ranks: int, machine: Machine, is_halved: bool = False) -> Times:
    """What parts of a step take, as the page has the formulas."""
    wire, others, own = ITEM // 2 if is_halved else ITEM, (ranks - 1) / ranks, elements / ranks
    buckets = math.ceil(own / max(BUCKET // ranks, LEAST_MESSAGE))
    return Times(
        gradients=(ranks - 1) * buckets * machine.latency + wire * elements * others / machine.link,
        sums=wire * elements * others / machine.memory,
        update=STREAMS * ITEM * own / machine.memory,
        parameters=(ranks - 1) * machine.latency + ITEM * elements * others / machine.link,
    )


def simulated(elements: int, ranks: int, machine: Machine, is_halved: bool = False, steps: int = 200) -> float:
    """The median time of a step, whose gradients only the slowest rank's update lets begin to move again."""
    times, rng = model(elements, ranks, machine, is_halved), np.random.default_rng(ranks)
    alone = times.sums + times.update
    slowest = [alone * max(1.0, rng.normal(1.0, machine.spread, ranks).max()) for _ in range(steps)]
    return float(np.median(slowest)) + times.gradients + times.parameters


def draw(path: Path, elements: int, machine: Machine, counts: Sequence[int]) -> None:
    """Time of a step over the number of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    axes = figure.subplots()
    for is_halved, name in ((False, "float32"), (True, "gradients as bfloat16")):
        axes.plot(counts, [1e3 * simulated(elements, p, machine, is_halved) for p in counts], label=name)
    axes.plot(counts, [1e3 * model(elements, p, machine).update for p in counts], "--", label="of it the update")
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="ms a step", title=f"Adam, {elements:,} parameters")
    axes.legend()
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=32_000_000)
    for field in dataclasses.fields(Machine):
        parser.add_argument(f"--{field.name}", type=float, default=field.default)
    parser.add_argument("--out", type=Path, default=Path("mpi_model.png"))
    given = vars(parser.parse_args(arguments))
    elements, path = given.pop("elements"), given.pop("out")
    machine = Machine(**given)
    print("ranks  gradients     sums   update  parameters    step  simulated  as bfloat16   (ms)   communication")
    for ranks in (2, 4, 16, 64, 256, 1024, 4096, 10_000):
        t = model(elements, ranks, machine)
        parts = [1e3 * each for each in (t.gradients, t.sums, t.update, t.parameters, t.step)]
        drawn = [1e3 * simulated(elements, ranks, machine, is_halved) for is_halved in (False, True)]
        print(
            f"{ranks:5}" + "".join(f"{each:10.2f}" for each in (*parts, *drawn)) + f"{t.communication:25.0%}",
        )
    draw(path, elements, machine, [2**k for k in range(1, 14)])


if __name__ == "__main__":
    main()
