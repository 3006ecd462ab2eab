"""``python -m bench.training``: a whole training step against PyTorch and NumPy, and what each option adds to a bare step.

A whole step clips by the norm, skips what is not finite, steps AdamW, averages the parameters and zeroes the gradient.
Before each of them every contender gets a fresh gradient, which is not timed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.contenders import set_num_threads
from bench.limit import streaming_step
from bench.traffic import Pass

LR, WEIGHT_DECAY, BETAS, EPS, CLIP_NORM, EMA_DECAY = 1e-3, 1e-2, (0.9, 0.999), 1e-8, 1.0, 0.999

# Reads the gradient; then updates parameter, gradient, two states and the average.
PASSES = (Pass(0, 1), Pass(5, 0))

Step = Callable[[], object]


def start_fastopt(theta: NDArray[Any], g: NDArray[Any]) -> Step:
    """One look at the gradient, and one pass."""
    options = {"clip_norm": CLIP_NORM, "nonfinite": "skip", "ema_decay": EMA_DECAY, "zero_grad": True}
    optimizer = fastopt.AdamW(theta, LR, BETAS, EPS, WEIGHT_DECAY, **options)
    return lambda: optimizer.step(g)


def start_torch(theta: NDArray[Any], g: NDArray[Any]) -> Step:
    """The fastest that PyTorch has for each part."""
    import torch

    p = torch.from_numpy(theta).requires_grad_()
    p.grad = torch.from_numpy(g)
    optimizer = torch.optim.AdamW([p], LR, BETAS, EPS, WEIGHT_DECAY, fused=True)
    average = p.detach().clone()

    def step() -> None:
        norm = torch.nn.utils.clip_grad_norm_([p], CLIP_NORM, foreach=True)
        if torch.isfinite(norm):
            optimizer.step()
            torch._foreach_lerp_([average], [p.detach()], 1.0 - EMA_DECAY)
        optimizer.zero_grad(set_to_none=False)

    return step


def start_numpy(theta: NDArray[Any], g: NDArray[Any]) -> Step:
    """In place, with one temporary, and factors joined where that saves a pass."""
    m, v, average, temporary = np.zeros_like(theta), np.zeros_like(theta), theta.copy(), np.empty_like(theta)
    beta1, beta2 = BETAS
    t = 0

    def step() -> None:
        nonlocal t
        norm = math.sqrt(np.dot(g, g))
        if math.isfinite(norm):
            t += 1
            if norm > CLIP_NORM:
                np.multiply(g, CLIP_NORM / norm, out=g)
            np.multiply(theta, 1.0 - LR * WEIGHT_DECAY, out=theta)
            np.multiply(m, beta1, out=m)
            np.multiply(g, 1.0 - beta1, out=temporary)
            np.add(m, temporary, out=m)
            np.multiply(v, beta2, out=v)
            np.multiply(g, g, out=temporary)
            np.multiply(temporary, 1.0 - beta2, out=temporary)
            np.add(v, temporary, out=v)
            root = math.sqrt(1.0 - beta2**t)
            np.sqrt(v, out=temporary)
            np.add(temporary, EPS * root, out=temporary)
            np.divide(m, temporary, out=temporary)
            np.multiply(temporary, LR * root / (1.0 - beta1**t), out=temporary)
            np.subtract(theta, temporary, out=theta)
            np.multiply(average, EMA_DECAY, out=average)
            np.multiply(theta, 1.0 - EMA_DECAY, out=temporary)
            np.add(average, temporary, out=average)
        g.fill(0)

    return step


CONTENDERS: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], Step]] = {
    "fastopt": start_fastopt,
    "PyTorch": start_torch,
    "in-place NumPy": start_numpy,
}


class Turn(NamedTuple):
    """A contender: its step, its gradient, and what has to be done before its turn."""

    step: Step
    g: NDArray[Any]
    prepare: Callable[[], object] = lambda: None


def fresh_steps(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in every round, each with a fresh gradient; every other round in reverse order."""
    size = next(iter(turns.values())).g.size
    fresh = np.random.default_rng(0).standard_normal(size, np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(-2, rounds):  # two rounds that don't count: compilation, and pages that are touched for the first time
        for name, (step, g, prepare) in list(turns.items())[:: -1 if i % 2 else 1]:
            prepare()
            for _ in range(2):  # the first one is not timed: it brings the contender's own arrays to the caches
                np.copyto(g, fresh)
                begin = time.perf_counter()
                step()
                end = time.perf_counter()
            if i >= 0:
                seconds[name].append(end - begin)
    return seconds


def whole_steps(size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of all contenders, and of the streaming limit."""
    turns: dict[str, Turn] = {}
    for name, start in CONTENDERS.items():
        if name == "PyTorch" and importlib.util.find_spec("torch") is None:
            print("PyTorch is left out: torch must be installed")
            continue
        theta, g = np.ones(size, np.float32), np.ones(size, np.float32)
        turns[name] = Turn(start(theta, g), g)
    turns["streaming limit"] = Turn(streaming_step(PASSES, size, np.dtype(np.float32)), np.ones(size, np.float32))
    return fresh_steps(turns, rounds)


# Everything that can be switched on and off, as it is when it is off.
OFF: dict[str, Any] = {"maximize": False, "bounds": None, "clip_value": None, "l1": 0.0, "flush_subnormals": False}
OFF |= {"clip_norm": None, "zero_grad": False, "ema_decay": None, "copy_to": None}


def option_costs(size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of Adam with each option, and without, on the same arrays: memory is not equally fast everywhere."""
    options: dict[str, dict[str, Any]] = {
        "bare": {},
        "maximize": {"maximize": True},
        "bounds": {"bounds": (-1.0, 2.0)},
        "clip_value": {"clip_value": 1.0},
        "l1": {"l1": 1e-4},
        "flush_subnormals": {"flush_subnormals": True},
        "zero_grad": {"zero_grad": True},
        "ema_decay": {"ema_decay": 0.999},
        "copy_to float16": {"copy_to": np.zeros(size, np.float16)},
        "copy_to bfloat16": {"copy_to": np.zeros(size, np.uint16)},
        "scale": {},
        "clip_norm": {"clip_norm": 1.0},
    }
    g = np.ones(size, np.float32)
    optimizer = fastopt.Adam(np.ones(size, np.float32), ema_decay=0.999)
    (group,) = optimizer.param_groups

    def prepare(values: dict[str, Any]) -> None:
        group.update(OFF | values)
        optimizer._stepping.forget_scale()  # as in an optimizer that has seen none yet

    turns = {}
    for name, values in options.items():
        scale = 0.5 if name == "scale" else 1.0
        turns[name] = Turn(functools.partial(optimizer.step, g, scale), g, functools.partial(prepare, values))
    return fresh_steps(turns, rounds)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--size", nargs="+", type=lambda text: int(float(text)), default=[32_000_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=fastopt.get_num_threads(), metavar="N")
    args = parser.parse_args(argv)
    set_num_threads(args.threads)
    for size in args.size:
        print(f"\n{size:,} elements of float32, {args.threads} threads, medians of {args.rounds} rounds; quartiles in brackets")
        _print("A whole step, and how many times as long others take", whole_steps(size, args.rounds), "fastopt")
        _print("A step of Adam, and how many times as long it takes with an option", option_costs(size, args.rounds), "bare")


def _print(title: str, seconds: Mapping[str, Sequence[float]], reference: str) -> None:
    print(f"\n{title}\n")
    for name, times in seconds.items():
        low, median, high = np.percentile(np.divide(times, seconds[reference]), [25, 50, 75])
        print(f"{name:20} {1e3 * np.median(times):9.3f} ms  {median:6.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
