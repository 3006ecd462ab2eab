"""Hours of use in one process: memory must stay flat, whatever optimizers are made, changed, saved, copied and thrown away.

``python -m bench.soak --seconds 3600`` prints the resident memory as it goes, and ends with status 1 if the last quarter of the
time needed more than the first one by more than `--allowed` MiB. Before the clock starts all is compiled.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastopt
from fastopt.schedules import Cosine

OPTIMIZERS = (fastopt.Adam, fastopt.SGD, fastopt.AdaGrad, fastopt.LAMB, fastopt.Prodigy, fastopt.ScheduleFreeAdamW)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"clip_norm": 1.0, "threads": 1},
    {"nonfinite": "skip", "weight_decay": 0.1},
    {"maximize": True, "zero_grad": True},
)


def resident() -> float:
    """The memory of this process, in MiB, without what waits for Python's collector of cycles."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def life(rng: np.random.Generator, folder: str, optimizer: type[fastopt.Optimizer], options: dict[str, Any]) -> None:
    """What an optimizer goes through, from construction to the end."""
    sizes = rng.integers(1, 4_000, rng.integers(1, 8))
    params = {f"layer {i}": rng.normal(size=size).astype(np.float32) for i, size in enumerate(sizes)}
    opt = optimizer(params, **options)
    for change in range(4):
        for _ in range(20):
            opt.step({name: rng.random(array.shape, np.float32) for name, array in params.items()})
        if change == 0 and not isinstance(opt, (fastopt.Prodigy, fastopt.ScheduleFreeAdamW)):
            opt.lr = Cosine(1e-3, 100) if rng.random() < 0.5 else 1e-4
        elif change == 1:
            opt.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
            fastopt.save(os.path.join(folder, "soak.npz"), opt)
        elif change == 2:
            fastopt.load(os.path.join(folder, "soak.npz"), copy.deepcopy(opt))
            opt.accumulate(params_like(params))
            opt.step_async().result()
            fastopt.set_num_threads(int(rng.integers(1, fastopt.get_num_threads() + 1)) if rng.random() < 0.1 else 2)


def params_like(params: dict[str, Any]) -> dict[str, Any]:
    """Gradients of ones."""
    return {name: np.ones_like(array) for name, array in params.items()}


def soak(seconds: float, every: float) -> Iterator[tuple[float, int, float]]:
    """Live one life after the other; now and then the time, how many there were, and the memory in MiB."""
    rng, cases = np.random.default_rng(0), [*itertools.product(OPTIMIZERS, OPTIONS)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            for case in cases:
                life(rng, folder, *case)
        begin, lives, shown = time.perf_counter(), 0, 0.0
        while (elapsed := time.perf_counter() - begin) < seconds:
            life(rng, folder, *cases[rng.integers(len(cases))])
            lives += 1
            if elapsed >= shown:
                shown += every
                yield elapsed, lives, resident()


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--allowed", type=float, default=8.0, metavar="MIB")
    chosen = parser.parse_args()
    seen: list[tuple[float, float]] = []
    for elapsed, lives, memory in soak(chosen.seconds, chosen.seconds / 40):
        print(f"{elapsed:8.0f} s {lives:8d} lives {memory:8.1f} MiB", flush=True)
        seen.append((elapsed / chosen.seconds, memory))
    first = max(memory for share, memory in seen if share < 0.25)
    last = max(memory for share, memory in seen if share >= 0.75)
    print(f"from the first quarter to the last: {last - first:+.1f} MiB")
    return int(last - first > chosen.allowed)


if __name__ == "__main__":
    raise SystemExit(main())
