"""``python -m bench.network``: a step in a training loop, between the matrix products of a threaded BLAS.

A network of NumPy's, 64 - h - h - 10 with ReLU and softmax, learns random digits in batches of 64. Each contender runs in a
process of its own, and the processes take turns; one computes gradients alone, which is the floor. What a step *adds* is the
time of an iteration less that of the floor in the same round: its own time, and by how much it slows the gradient that follows.
BLAS is as it comes, and so is every contender; arguments of the environment (``OMP_WAIT_POLICY``) reach all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[np.float32]]
Step = Callable[[], object]

BATCH, INPUTS, CLASSES = 64, 64, 10
HIDDEN = (32, 256, 1024)
LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8
FLOOR, OURS, NUMPY = "gradients alone", "fastopt", "in-place NumPy"


def no_step(params: Arrays, grads: Arrays) -> Step:
    """Only the gradients."""
    return lambda: None


def fastopt_step(params: Arrays, grads: Arrays) -> Step:
    """A list of arrays."""
    import fastopt

    optimizer = fastopt.Adam(params, LR, BETAS, EPS)
    return lambda: optimizer.step(grads)


def fastopt_alone(params: Arrays, grads: Arrays) -> Step:
    """The same on the caller's thread."""
    import fastopt

    optimizer = fastopt.Adam(params, LR, BETAS, EPS, threads=1)
    return lambda: optimizer.step(grads)


def numpy_step(params: Arrays, grads: Arrays) -> Step:
    """Adam as one writes it with care: in place, with two buffers for each array."""
    states = [(w, g, np.zeros_like(w), np.zeros_like(w), np.empty_like(w)) for w, g in zip(params, grads, strict=True)]
    beta1, beta2 = BETAS
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        rate, root = LR / (1 - beta1**t), (1 - beta2**t) ** 0.5
        for w, g, m, v, a in states:
            m *= beta1
            np.multiply(g, 1 - beta1, out=a)
            m += a
            v *= beta2
            np.multiply(g, g, out=a)
            a *= 1 - beta2
            v += a
            np.sqrt(v, out=a)
            a /= root
            a += EPS
            np.divide(m, a, out=a)
            a *= rate
            w -= a

    return step


def torch_step(params: Arrays, grads: Arrays) -> Step:
    """PyTorch's fused Adam over the same memory."""
    import torch

    tensors = [torch.from_numpy(w).requires_grad_() for w in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g)
    return torch.optim.Adam(tensors, LR, BETAS, EPS, fused=True).step


CONTENDERS: dict[str, Callable[[Arrays, Arrays], Step]] = {
    FLOOR: no_step,
    OURS: fastopt_step,
    "fastopt, threads=1": fastopt_alone,
    NUMPY: numpy_step,
    "PyTorch fused": torch_step,
}


def network(hidden: int) -> tuple[Arrays, Arrays, Callable[[], None]]:
    """Parameters, gradients, and what fills the gradients from the next batch."""
    rng = np.random.default_rng(0)
    widths = (INPUTS, hidden, hidden, CLASSES)
    weights = [(rng.normal(size=pair) / np.sqrt(pair[0])).astype(np.float32) for pair in itertools.pairwise(widths)]
    params = [array for w in weights for array in (w, np.zeros(w.shape[1], np.float32))]
    grads = [np.zeros_like(p) for p in params]
    images = rng.normal(size=(64 * BATCH, INPUTS)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=len(images))]
    begin = 0

    def fill() -> None:
        nonlocal begin
        x, y = images[begin : begin + BATCH], labels[begin : begin + BATCH]
        begin = (begin + BATCH) % len(images)
        inputs = [x]
        for layer in range(3):
            x = x @ params[2 * layer] + params[2 * layer + 1]
            if layer < 2:
                np.maximum(x, 0.0, out=x)
                inputs.append(x)
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        delta = (x / x.sum(axis=1, keepdims=True) - y) / BATCH
        for layer in (2, 1, 0):
            np.matmul(inputs[layer].T, delta, out=grads[2 * layer])
            np.sum(delta, axis=0, out=grads[2 * layer + 1])
            if layer:
                delta = (delta @ params[2 * layer].T) * (inputs[layer] > 0.0)

    return params, grads, fill


def timed(contender: str, hidden: int, seconds: float) -> dict[str, float]:
    """Seconds of an iteration, and of the gradients in it: medians over so long a time, after a third of it to warm up."""
    params, grads, fill = network(hidden)
    step = CONTENDERS[contender](params, grads)
    iterations, gradients = [], []
    begin = time.perf_counter()
    while (now := time.perf_counter()) < begin + 4 / 3 * seconds or not iterations:
        fill()
        filled = time.perf_counter()
        step()
        if now > begin + seconds / 3:
            iterations.append(time.perf_counter() - now)
            gradients.append(filled - now)
    return {"iteration": statistics.median(iterations), "gradients": statistics.median(gradients)}


def in_a_process(contender: str, hidden: int, seconds: float) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.network", "--one", contender, "--hidden", str(hidden), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def chosen(names: Sequence[str]) -> list[str]:
    """The contenders that are installed."""
    return [name for name in names if name != "PyTorch fused" or importlib.util.find_spec("torch") is not None]


def report(hidden: int, names: Sequence[str], rounds: int, seconds: float) -> None:
    """Measure and print what each step adds to the gradients."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            rows[name].append(in_a_process(name, hidden, seconds))
    floor = [row["iteration"] for row in rows[FLOOR]]
    added = {n: [row["iteration"] - own for row, own in zip(rows[n], floor, strict=True)] for n in names}
    print(f"\nh = {hidden}: gradients alone {1e6 * statistics.median(floor):.0f} us")
    print(f"{'':24} {'adds, us':>10} {'of NumPy':>9} {'gradients':>10}")
    for name in names:
        if name != FLOOR:
            share = statistics.median(own / numpy for own, numpy in zip(added[name], added[NUMPY], strict=True))
            slower = statistics.median(row["gradients"] / own for row, own in zip(rows[name], floor, strict=True))
            print(f"{name:24} {1e6 * statistics.median(added[name]):10.1f} {share:9.2f} {slower:10.2f}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.network --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="*", default=HIDDEN)
    parser.add_argument("--contender", nargs="*", default=[*CONTENDERS], metavar="NAME", help="besides the floor and NumPy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each process")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(timed(args.one, args.hidden[0], args.seconds)))
        return
    names = chosen([name for name in CONTENDERS if name in (FLOOR, NUMPY, *args.contender)])
    for hidden in args.hidden:
        report(hidden, names, args.rounds, args.seconds)


if __name__ == "__main__":
    main()
