"""``python -m bench.shapes``: a step in the shapes that users have, next to one plain step of as many elements.

Lists, dicts, groups, options, gradients that are new at each step. The plain step is ``fastopt.Adam(w).step(g)`` on one flat
array of float32. Where PyTorch, or NumPy in place, does the same, they take part. Each shape has a bar: how many times as long
as the plain step it may take, or, where that is said, as the same over one `fastopt.Flat`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.measure import interleaved

Step = Callable[[], object]
SIZE = 1_000
PLAIN, OURS, FLAT, NUMPY, TORCH = "plain", "fastopt", "one Flat", "in-place NumPy", "PyTorch fused"


class Shape(NamedTuple):
    """What is measured: its name, the steps by contender, and the bar against one of them."""

    name: str
    steps: dict[str, Step]
    bar: float
    against: str = PLAIN


def arrays(count: int, value: float = 0.0) -> list[NDArray[Any]]:
    """So many arrays of a thousand elements."""
    return [np.full(SIZE, value, np.float32) for _ in range(count)]


def stepped(params: Any, grads: Any, optimizer: Any = fastopt.Adam, **options: Any) -> Step:
    """A step with the same gradients each time."""
    made = optimizer(params, **options)
    return lambda: made.step(grads)


def plain(count: int = 1) -> Step:
    """One flat array with the elements of so many."""
    return stepped(np.zeros(count * SIZE, np.float32), np.ones(count * SIZE, np.float32))


def flat(count: int, **options: Any) -> Step:
    """The same arrays in one buffer."""
    params = fastopt.flatten(arrays(count))
    grads = params.like()
    grads.buffer[:] = 1.0
    return stepped(params, grads, **options)


def torch_fused(count: int, clip_norm: float | None = None) -> dict[str, Step]:
    """PyTorch's fused Adam over so many tensors, if PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    params = [torch.zeros(SIZE, requires_grad=True) for _ in range(count)]
    for p in params:
        p.grad = torch.ones(SIZE)
    optimizer = torch.optim.Adam(params, fused=True)

    def step() -> None:
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, clip_norm)
        optimizer.step()

    return {TORCH: step}


def numpy_clipped() -> Step:
    """Adam in place, after a look at the gradient's norm."""
    w, g, m, v, a, b = (np.full(SIZE, x, np.float32) for x in (0, 1, 0, 0, 0, 0))
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        norm = float(np.sqrt(np.dot(g, g)))
        factor = min(1.0, 1.0 / norm)
        np.multiply(g, np.float32(factor * 0.1), out=a)
        np.multiply(m, np.float32(0.9), out=m)
        np.add(m, a, out=m)
        np.multiply(g, g, out=a)
        np.multiply(a, np.float32(factor * factor * 0.001), out=a)
        np.multiply(v, np.float32(0.999), out=v)
        np.add(v, a, out=v)
        np.divide(v, np.float32(1 - 0.999**t), out=a)
        np.sqrt(a, out=a)
        np.add(a, np.float32(1e-8), out=a)
        np.divide(m, a, out=b)
        np.multiply(b, np.float32(1e-3 / (1 - 0.9**t)), out=b)
        np.subtract(w, b, out=w)

    return step


def lists() -> Iterator[Shape]:
    """Many arrays."""
    for count in (1, 6, 100, 1_000):
        others = {PLAIN: plain(count), **torch_fused(count)}
        yield Shape(f"list of {count:,} arrays", {OURS: stepped(arrays(count), arrays(count, 1.0)), **others}, 1.3)
    named = {f"layer{i}": array for i, array in enumerate(arrays(6))}
    grads = {name: np.ones(SIZE, np.float32) for name in named}
    yield Shape("dict of 6 arrays", {OURS: stepped(named, grads), PLAIN: plain(6)}, 1.5)
    nested = {"a": arrays(3), "b": {"c": tuple(arrays(3))}}
    grads = {"a": arrays(3, 1.0), "b": {"c": tuple(arrays(3, 1.0))}}
    yield Shape("nested, 6 arrays", {OURS: stepped(nested, grads), PLAIN: plain(6)}, 1.5)
    for name, options in {"clip_norm": {"clip_norm": 1.0}, "LAMB": {"optimizer": fastopt.LAMB}}.items():
        steps = {OURS: stepped(arrays(1_000), arrays(1_000, 1.0), **options), FLAT: flat(1_000, **options)}
        peers = torch_fused(1_000, clip_norm=1.0) if name == "clip_norm" else {}
        yield Shape(f"list of 1,000 arrays, {name}", {**steps, **peers}, 1.3, FLAT)


def options() -> Iterator[Shape]:
    """One array of a thousand elements, with something around the step."""
    w, g = arrays(2)
    g[:] = 1.0
    cases: dict[str, tuple[float, dict[str, Any]]] = {
        "mask": (1.5, {"mask": np.ones(SIZE, bool)}),
        "zero_grad": (1.5, {"zero_grad": True}),
        "bounds": (1.5, {"bounds": (-1.0, 1.0)}),
        "bounds, arrays": (1.5, {"bounds": (-np.ones(SIZE, np.float32), np.ones(SIZE, np.float32))}),
        "ema_decay": (1.5, {"ema_decay": 0.9}),
        "a schedule": (1.5, {"lr": lambda step: 1e-3}),
        "nonfinite='skip'": (2.0, {"nonfinite": "skip"}),
        "cautious": (4.0, {"cautious": True}),
    }
    for name, (bar, given) in cases.items():
        yield Shape(name, {OURS: stepped(w.copy(), g, **given), PLAIN: plain()}, bar)
    yield Shape("clip_norm", {OURS: stepped(w.copy(), g, clip_norm=1.0), PLAIN: plain(), NUMPY: numpy_clipped()}, 2.0)
    scaled = fastopt.Adam(w.copy())
    yield Shape("scale=", {OURS: lambda: scaled.step(g, scale=0.5), PLAIN: plain()}, 1.5)
    halves = [{"params": w[:500].copy()}, {"params": w[500:].copy(), "lr": 1e-2}]
    yield Shape("two groups", {OURS: stepped(halves, [g[:500], g[500:]]), PLAIN: plain()}, 1.5)
    for bar, names in ((1.5, ("NAdam", "ScheduleFreeAdamW")), (4.0, ("LARS", "LAMB", "NovoGrad", "DoG", "DoWG", "Prodigy"))):
        for name in names:
            yield Shape(name, {OURS: stepped(w.copy(), g, getattr(fastopt, name)), PLAIN: plain()}, bar)


def gradients() -> Iterator[Shape]:
    """Gradients that are other objects each time, rates that change, and optimizers that are made."""
    w, g = arrays(2)
    g[:] = 1.0
    optimizer = fastopt.Adam(w.copy())
    yield Shape("a new view each time", {OURS: lambda: optimizer.step(g[:]), PLAIN: plain()}, 1.3)
    yield Shape("a Flat", {OURS: flat(1), PLAIN: plain()}, 1.3)
    yield Shape("a dict of one", {OURS: stepped({"w": w.copy()}, {"w": g}), PLAIN: plain()}, 1.3)
    changing = fastopt.Adam(w.copy())

    def change() -> None:
        changing.lr = 1e-3 if changing.lr != 1e-3 else 2e-3
        changing.step(g)

    yield Shape("opt.lr = x, and a step", {OURS: change, PLAIN: plain()}, 1.5)
    yield Shape("Adam(w), no step", {OURS: lambda: fastopt.Adam(w), PLAIN: plain()}, 10.0)
    if importlib.util.find_spec("torch") is not None:
        import torch

        tensor = torch.ones(SIZE)
        own = fastopt.Adam(w.copy())
        yield Shape(".numpy() of a tensor", {OURS: lambda: own.step(tensor.numpy()), PLAIN: plain()}, 1.3)


def wrapped() -> Iterator[Shape]:
    """A model of many small tensors of PyTorch's, with a scheduler."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    import fastopt.torch

    steps: dict[str, Step] = {}
    for name in (OURS, TORCH):
        params = [torch.zeros(64, requires_grad=True) for _ in range(640)]
        for p in params:
            p.grad = torch.ones(64)
        made: Any = fastopt.torch.wrap(fastopt.Adam, params) if name == OURS else torch.optim.Adam(params, fused=True)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(made, 0.99999)

        def step(made: Any = made, scheduler: Any = scheduler) -> None:
            made.step()
            scheduler.step()

        steps[name] = step
    yield Shape("torch.wrap, 640 tensors of 64, a scheduler", steps, 1.0, TORCH)


def measured(rounds: int, block_seconds: float) -> Iterator[tuple[Shape, dict[str, list[float]]]]:
    """Seconds a step in every round, by contender."""
    for kind in (lists, options, gradients, wrapped):
        for shape in kind():
            yield shape, interleaved(shape.steps, rounds, block_seconds)


def excess(shape: Shape, seconds: dict[str, list[float]]) -> float:
    """How many times as long as the one it is held against: the median over the rounds."""
    return float(np.median(np.divide(seconds[OURS], seconds[shape.against])))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.shapes --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.shapes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--block", type=float, default=0.02, metavar="SECONDS", help="that a block of calls takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the seconds of every round there")
    args = parser.parse_args(argv)
    records = []
    print(f"{'shape':44} {'us':>9} {'ratio':>7} {'bar':>5}  others, as ratios of fastopt's time")
    for shape, seconds in measured(args.rounds, args.block):
        ratio = excess(shape, seconds)
        others = {n: float(np.median(np.divide(seconds[n], seconds[OURS]))) for n in seconds if n not in (OURS, shape.against)}
        told = ", ".join(f"{name} {value:.2f}" for name, value in others.items())
        mark = "" if ratio <= shape.bar else " over"
        time = 1e6 * float(np.median(seconds[OURS]))
        print(f"{shape.name:44} {time:9.2f} {ratio:7.2f} {shape.bar:5.2f}{mark}  {told}", flush=True)
        records.append({"shape": shape.name, "bar": shape.bar, "against": shape.against, "seconds": seconds})
    if args.json:
        args.json.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
