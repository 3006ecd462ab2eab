"""Steps of Adam with fewer bits, against float32 and PyTorch's fused Adam; and what comes of runs with them.

``python -m bench.low_precision`` prints a table of speed, ``python -m bench.low_precision --train Adam Lion`` one of losses: on
the digits, or with ``--problem overfitting`` in 20,000 steps of a network that learns wrong labels, or of the inversion;
``--sum 100000`` how far AdaGrad's sum is carried.
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
from fastopt.arrays.codes import read
from fastopt.commands.demo import network
from fastopt.commands.demo.digits import Digits
from fastopt.commands.demo.inversion import Inversion
from fastopt.engine.formats import bfloat16, decoded, encoded

PYTORCH = "PyTorch fused, float32"
SEEDS = range(5)
HYPER: dict[str, dict[str, float]] = {"Adam": {}, "Lion": {"lr": 1e-4}, "RMSProp": {"lr": 3e-4, "rho": 0.9}, "AdaGrad": {}}
HYPER_OF_INVERSION = {"Adam": {"lr": 0.1}, "Lion": {"lr": 0.03}, "RMSProp": {"lr": 0.03, "rho": 0.9}, "AdaGrad": {"lr": 0.3}}


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
    "states int8, nearest": Form(options={"state_dtype": "int8"}),
    "states int8, stochastic": Form(options={"state_dtype": "int8", "rounding": "stochastic"}),
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


class Overfitting(Digits):
    """A small network for digits of which a fifth have a label drawn at random, so that its loss comes to rest above zero."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rng = np.random.default_rng(seed)
        is_wrong = rng.random(len(self.labels)) < 0.2
        self.labels = np.where(is_wrong, rng.integers(0, 10, len(self.labels)), self.labels)

    def start(self) -> fastopt.Flat:
        """The network's first weights."""
        return fastopt.flatten(network.initialize((64, 32, 10), np.random.default_rng(self.seed)))


# How to make them, and how many epochs: of 22 steps, or, for the inversion, of one.
PROBLEMS: dict[str, tuple[Callable[[int], Any], int]] = {
    "digits": (Digits, 15),
    "overfitting": (Overfitting, 910),
    "inversion": (functools.partial(Inversion, size=128), 400),
}


def trained(name: str, form: Form, problem: str, epochs: int, seed: int) -> tuple[float, float]:
    """The mean loss of the last twentieth of all steps, or of the last epoch if that is longer, and the score."""
    learned = PROBLEMS[problem][0](seed)
    hyper = (HYPER_OF_INVERSION if problem == "inversion" else HYPER)[name]
    params = learned.start()
    grads, optimized, given = params.like(), params, params.like()
    if form.is_low:
        optimized, given = params.like(bfloat16()), params.like(bfloat16())
        optimized.buffer[...] = encoded(params.buffer, bfloat16())
    optimizer = getattr(fastopt, name)(optimized, **hyper, **form.options)
    losses: list[float] = []
    for epoch in range(epochs):
        if epoch <= epochs - max(1, epochs // 20):
            losses = []
        params.buffer[...] = decoded(optimized.buffer)
        for loss in learned.losses(params, grads, epoch):
            losses.append(loss)
            given.buffer[...] = encoded(grads.buffer, given.buffer.dtype)
            optimizer.step(given)
            params.buffer[...] = decoded(optimized.buffer)
    return statistics.fmean(losses), learned.score(params)


def carried(form: Form, steps: int) -> Iterator[tuple[int, float, float]]:
    """AdaGrad's sum of squares that are 1, over their count: the mean and the spread of many elements, now and then."""
    w, g = np.zeros(1024, np.float32), np.ones(1024, np.float32)
    optimizer = fastopt.AdaGrad(w, **form.options)
    for t in range(1, steps + 1):
        optimizer.step(g)
        if t in (10, 100, 1000, 10_000, 100_000):
            share = read(optimizer.state["r"]) / t
            yield t, float(share.mean()), float(share.std())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(prog="bench.low_precision")
    parser.add_argument("--train", nargs="+", choices=HYPER, default=(), metavar="NAME")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="FORM")
    parser.add_argument("--problem", choices=PROBLEMS, default="digits")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--size", type=int, default=32_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sum", type=int, metavar="STEPS", help="instead, how far AdaGrad's sum is carried")
    chosen = parser.parse_args(arguments)
    if chosen.sum:
        for form in (form for form in chosen.forms if not FORMS[form].is_low):
            found = "  ".join(f"{t}: {mean:.3f} +- {spread:.3f}" for t, mean, spread in carried(FORMS[form], chosen.sum))
            print(f"{form:38}  {found}", flush=True)
        return
    epochs = chosen.epochs or PROBLEMS[chosen.problem][1]
    forms = dict.fromkeys(("float32", *chosen.forms))
    for name in chosen.train:
        results = {form: [trained(name, FORMS[form], chosen.problem, epochs, seed) for seed in SEEDS] for form in forms}
        first = statistics.fmean(loss for loss, _ in results["float32"])
        for form, runs in results.items():
            loss, accuracy = (statistics.fmean(column) for column in zip(*runs, strict=True))
            print(f"{name:8}  {form:38}  loss {loss:.5f} ({loss / first - 1:+.1%})  score {accuracy:.4f}", flush=True)
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
