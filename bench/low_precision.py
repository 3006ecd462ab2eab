"""Steps of Adam with fewer bits, against float32 and PyTorch's fused Adam; and what a network learns with them.

``python -m bench.low_precision`` prints a table of speed, ``python -m bench.low_precision --train Adam Lion`` one of losses.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import fastopt
from bench.measure import interleaved
from fastopt.commands.demo.digits import Digits
from fastopt.engine.formats import bfloat16, decoded, encoded

PYTORCH = "PyTorch fused, float32"
SEEDS = range(5)
HYPER: dict[str, dict[str, float]] = {"Adam": {}, "Lion": {"lr": 1e-4}, "RMSProp": {"lr": 3e-4, "rho": 0.9}, "AdaGrad": {}}


class Form(NamedTuple):
    """How parameters, gradients and states are kept."""

    is_low: bool = False  # whether parameters and gradients are of bfloat16
    options: Mapping[str, Any] = MappingProxyType({})


STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}
FORMS = {
    "float32": Form(),
    "states bfloat16, nearest": Form(options={"state_dtype": "bfloat16"}),
    "states bfloat16, stochastic": Form(options=STOCHASTIC),
    "states float16, nearest": Form(options={"state_dtype": "float16"}),
    "states float16, stochastic": Form(options={"state_dtype": "float16", "rounding": "stochastic"}),
    "all bfloat16, nearest": Form(True, {"state_dtype": "bfloat16"}),
    "all bfloat16, stochastic": Form(True, STOCHASTIC),
    "all bfloat16, stochastic, lost bits": Form(True, STOCHASTIC | {"master_weights": "lost bits"}),
    "all bfloat16, stochastic, 8 lost bits": Form(True, STOCHASTIC | {"master_weights": "8 lost bits"}),
    "parameters bfloat16, float32 master": Form(True, {"master_weights": True}),
}


def steps(size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """A step of each form over so many elements."""
    import torch

    g = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    theirs = torch.zeros(size)
    theirs.grad = torch.from_numpy(g)
    torch.set_num_threads(fastopt.get_num_threads())
    yield PYTORCH, torch.optim.Adam([theirs], fused=True).step
    low = encoded(g, bfloat16())
    for name, form in FORMS.items():
        optimizer = fastopt.Adam(np.zeros(size, low.dtype if form.is_low else np.float32), **form.options)
        yield name, functools.partial(optimizer.step, low if form.is_low else g)


def trained(name: str, form: Form, epochs: int, seed: int) -> tuple[float, float]:
    """The mean loss of the last epoch, and the accuracy, of the demo's network for the digits."""
    digits = Digits(seed)
    params = digits.start()
    grads, optimized, given = params.like(), params, params.like()
    if form.is_low:
        optimized, given = params.like(bfloat16()), params.like(bfloat16())
        optimized.buffer[...] = encoded(params.buffer, bfloat16())
    optimizer = getattr(fastopt, name)(optimized, **HYPER[name], **form.options)
    losses: list[float] = []
    for epoch in range(epochs):
        losses = []
        params.buffer[...] = decoded(optimized.buffer)
        for loss in digits.losses(params, grads, epoch):
            losses.append(loss)
            given.buffer[...] = encoded(grads.buffer, given.buffer.dtype)
            optimizer.step(given)
            params.buffer[...] = decoded(optimized.buffer)
    return statistics.fmean(losses), digits.score(params)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(prog="bench.low_precision")
    parser.add_argument("--train", nargs="+", choices=HYPER, default=(), metavar="NAME")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--size", type=int, default=32_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args(arguments)
    for name in chosen.train:
        results = {form: [trained(name, FORMS[form], chosen.epochs, seed) for seed in SEEDS] for form in FORMS}
        first = statistics.fmean(loss for loss, _ in results["float32"])
        for form, runs in results.items():
            loss, accuracy = (statistics.fmean(column) for column in zip(*runs, strict=True))
            print(f"{name:8}  {form:38}  loss {loss:.5f} ({loss / first - 1:+.1%})  accuracy {accuracy:.2%}", flush=True)
    if not chosen.train:
        seconds = interleaved(dict(steps(chosen.size)), chosen.rounds, 0.01)
        for name, times in seconds.items():
            columns = [f"median {np.median(times) * 1e3:8.2f} ms", f"least {min(times) * 1e3:8.2f} ms"]
            for other in (PYTORCH, "float32"):
                median, least = (float(of(seconds[other]) / of(times)) for of in (np.median, np.min))
                columns.append(f"{other} / this {median:5.2f}, of the least {least:5.2f}")
            print(f"{name:38}  {'  '.join(columns)}")


if __name__ == "__main__":
    main()
