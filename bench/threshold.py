"""``python -m bench.threshold``: whether each step runs on the number of threads that is fastest at its size.

The same step is taken as fastopt chooses, on one thread, and on all of them.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.cases import CASES, elements
from bench.contenders import set_num_threads
from bench.measure import Result, interleaved
from fastopt.engine import runtime

CHOSEN = "chosen"
# What decides for them: see `fastopt.set_parallel_threshold`.
THRESHOLDS = {CHOSEN: None, "one thread": 2**62, "all threads": 0}

# From few instructions for each byte to many.
NAMES = ("SGD", "AdaGrad", "Adam", "MADGRAD")
SIZES = tuple(round(10 ** (n / 2)) for n in range(6, 15))

# Until trials have shown what is fastest.
SETTLING_STEPS, SETTLING_SECONDS = 100, 0.2


def measured(sizes: Sequence[int], rounds: int, block_seconds: float) -> Iterator[Result]:
    """Seconds a step of all optimizers and sizes, by what decides."""
    for case in (case for case in CASES if case.name in NAMES):
        for size in sizes:
            _, theta, g, lr = case.problem(size, "float32")
            steps: dict[str, Callable[[], object]] = {}
            for name, threshold in THRESHOLDS.items():
                steps[name] = _step(case.start(theta.copy(), lr), g, threshold)
            yield Result(case, "float32", size, interleaved(steps, rounds, block_seconds))


def _step(optimizer: fastopt.Optimizer, g: NDArray[Any], threshold: int | None) -> Callable[[], object]:
    """A step that keeps to a threshold while others have their own."""
    fastopt.set_parallel_threshold(threshold)
    end = time.perf_counter() + SETTLING_SECONDS
    while optimizer.step_count < SETTLING_STEPS and time.perf_counter() < end:
        optimizer.step(g)
    runtime.keep_choice(optimizer._stepping.settled(optimizer).launch)
    fastopt.set_parallel_threshold(None)
    return functools.partial(optimizer.step, g)


def excess(result: Result) -> float:
    """How many times as long the chosen one takes as the better of the others: the median over the rounds."""
    chosen, *others = (result.seconds[name] for name in THRESHOLDS)
    return float(np.median(np.divide(chosen, np.min(others, axis=0))))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.threshold --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.threshold", description=__doc__)
    parser.add_argument("--size", nargs="+", type=elements, default=SIZES, metavar="N")
    parser.add_argument("--threads", type=int, default=fastopt.get_num_threads(), metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args(argv)
    set_num_threads(args.threads)
    print(f"{'optimizer':10} {'elements':>12} " + " ".join(f"{name:>14}" for name in THRESHOLDS) + "  chosen / best")
    for result in measured(args.size, args.rounds, 0.02):
        times = " ".join(f"{1e6 * result.median(name):11.2f} us" for name in THRESHOLDS)
        print(f"{result.case.name:10} {result.size:12,} {times}  {excess(result):8.2f}", flush=True)


if __name__ == "__main__":
    main()
