"""Stopping under noise: the test of ``"noisy": True``, patience and fixed budgets, against an oracle that knows the truth.

Adam with a fixed rate goes far beyond the end of its descent, and each rule looks at the same path. The oracle stops where the
true objective, averaged over 20 steps, first comes within two standard deviations of the plateau, which the last quarter of the
path shows. A stop is false if the true objective of what it gives is above that by more than a hundredth of the whole descent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.minimization.noise import Plateau
from fastopt.minimization.stopping import NoImprovement, Told

Array = NDArray[Any]
Draw = Callable[[Array, np.random.Generator], tuple[float, Array]]
Problem = tuple[Array, Draw, Callable[[Array], float], float]  # start, draws, truth, learning rate

AVERAGED = 20


def linear_fit(rng: np.random.Generator) -> Problem:
    """2,000 samples, 20 weights, batches of 32."""
    features, weights = rng.normal(size=(2000, 20)), rng.normal(size=20)
    target = features @ weights + 0.5 * rng.normal(size=2000)

    def draw(x: Array, rng: np.random.Generator) -> tuple[float, Array]:
        batch = rng.integers(0, 2000, 32)
        error = features[batch] @ x - target[batch]
        return 0.5 * float(np.mean(error**2)), features[batch].T @ error / 32

    return np.zeros(20), draw, lambda x: 0.5 * float(np.mean((features @ x - target) ** 2)), 0.02


def logistic_fit(rng: np.random.Generator) -> Problem:
    """2,000 samples, 30 weights of features that differ tenfold in scale, batches of 64."""
    features, weights = rng.normal(size=(2000, 30)) * np.logspace(0, -1, 30), 3 * rng.normal(size=30)
    label = (rng.random(2000) < 1 / (1 + np.exp(-features @ weights))).astype(float)

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        z = features[batch] @ x
        error = 1 / (1 + np.exp(-z)) - label[batch]
        value = np.mean(np.logaddexp(0, z) - label[batch] * z) + 1e-3 * x @ x
        return float(value), features[batch].T @ error / len(error) + 2e-3 * x

    return np.zeros(30), lambda x, rng: of(x, rng.integers(0, 2000, 64)), lambda x: of(x, slice(None))[0], 0.02


def inversion(rng: np.random.Generator) -> Problem:
    """A profile of 60 unknowns from 12 shots of 10 blurred readings each, of which a step sees 3."""
    places = np.linspace(0, 1, 60)
    profile = np.where((places > 0.3) & (places < 0.6), 1.0, 0.0)
    centers = np.split(rng.permutation(np.linspace(0, 1, 120)), 12)
    blur = [np.exp(-(((places - c[:, None]) / 0.05) ** 2)) / 6 for c in centers]
    data = [a @ profile + 0.02 * rng.normal(size=10) for a in blur]

    def of(x: Array, shots: Any) -> tuple[float, Array]:
        errors = [(blur[s], blur[s] @ x - data[s]) for s in shots]
        value = sum(0.5 * float(e @ e) for _, e in errors) * 12 / len(errors) + 1e-3 * float(x @ x)
        return value, sum(a.T @ e for a, e in errors) * 12 / len(errors) + 2e-3 * x

    return np.zeros(60), lambda x, rng: of(x, rng.choice(12, 3, replace=False)), lambda x: of(x, range(12))[0], 0.01


def rosenbrock(size: int, spread: float) -> Callable[[np.random.Generator], Problem]:
    """Values and gradients with normal noise."""

    def make(rng: np.random.Generator) -> Problem:
        start = np.array([-1.2, 1.0]) if size == 2 else np.zeros(size)

        def draw(x: Array, rng: np.random.Generator) -> tuple[float, Array]:
            return rosen(x) + spread * rng.normal(), rosen_der(x) + spread * rng.normal(size=size)

        return start, draw, rosen, 0.01

    return make


def network(rng: np.random.Generator) -> Problem:
    """1,000 points of a sine, 16 hidden units, batches of 32."""
    inputs = rng.uniform(-2, 2, (1000, 1))
    target = np.sin(2 * inputs) + 0.1 * rng.normal(size=(1000, 1))

    def of(p: Array, batch: Any) -> tuple[float, Array]:
        hidden = np.tanh(inputs[batch] @ p[:16].reshape(1, 16) + p[16:32])
        error = hidden @ p[32:48].reshape(16, 1) + p[48:] - target[batch]
        back = error @ p[32:48].reshape(1, 16) * (1 - hidden * hidden)
        parts = [(inputs[batch].T @ back).ravel(), back.sum(0), (hidden.T @ error).ravel(), error.sum(0)]
        return 0.5 * float(np.mean(error**2)), np.concatenate(parts) / len(error)

    return rng.normal(size=49), lambda p, rng: of(p, rng.integers(0, 1000, 32)), lambda p: of(p, slice(None))[0], 0.01


def poisson_fit(rng: np.random.Generator) -> Problem:
    """Counts from 442 patients, 10 measured quantities and a constant, batches of 16."""
    features, target = _diabetes()
    counts = rng.poisson(np.exp(1.5 + 0.5 * target))

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        rate = np.exp(features[batch] @ x)
        value = np.mean(rate - counts[batch] * np.log(rate))
        return float(value), features[batch].T @ (rate - counts[batch]) / len(rate)

    return np.zeros(11), lambda x, rng: of(x, rng.integers(0, 442, 16)), lambda x: of(x, slice(None))[0], 0.01


def robust_fit(rng: np.random.Generator) -> Problem:
    """The same patients' progression, one in ten wrong by far: Huber's loss, batches of 20."""
    features, target = _diabetes()
    target = target + np.where(rng.random(442) < 0.1, 10 * rng.normal(size=442), 0)

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        error = features[batch] @ x - target[batch]
        value = np.mean(np.where(np.abs(error) < 1, 0.5 * error**2, np.abs(error) - 0.5))
        return float(value), features[batch].T @ np.clip(error, -1, 1) / len(error)

    return np.full(11, 2.0), lambda x, rng: of(x, rng.integers(0, 442, 20)), lambda x: of(x, slice(None))[0], 0.01


def _diabetes() -> tuple[Array, Array]:
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True)
    return np.column_stack([features * math.sqrt(len(features)), np.ones(len(features))]), (target - 152) / 77


def tumours(rng: np.random.Generator) -> Problem:
    """Logistic fit to 569 tumours, 30 quantities that hang together, batches of 16."""
    from sklearn.datasets import load_breast_cancer

    features, label = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        z = features[batch] @ x
        error = 1 / (1 + np.exp(-z)) - label[batch]
        value = np.mean(np.logaddexp(0, z) - label[batch] * z) + 1e-2 * x @ x
        return float(value), features[batch].T @ error / len(error) + 2e-2 * x

    return rng.normal(size=30), lambda x, rng: of(x, rng.integers(0, 569, 16)), lambda x: of(x, slice(None))[0], 0.02


def autoencoder(rng: np.random.Generator) -> Problem:
    """300 digits of 64 pixels through 8 units and back, batches of 32."""
    from sklearn.datasets import load_digits

    digits = rng.permutation(load_digits().data)[:300] / 16

    def of(p: Array, batch: Any) -> tuple[float, Array]:
        into, back = p[:512].reshape(64, 8), p[512:1024].reshape(8, 64)
        hidden = np.tanh(digits[batch] @ into)
        error = hidden @ back + p[1024:] - digits[batch]
        inner = error @ back.T * (1 - hidden * hidden)
        parts = [(digits[batch].T @ inner).ravel(), (hidden.T @ error).ravel(), error.sum(0)]
        return 0.5 * float(np.sum(error**2)) / len(error), np.concatenate(parts) / len(error)

    start = 0.1 * rng.normal(size=1088)
    return start, lambda p, rng: of(p, rng.integers(0, 300, 32)), lambda p: of(p, slice(None))[0], 0.005


def tomography(rng: np.random.Generator) -> Problem:
    """A square of 12 x 12 from 16 shots of 20 rays each, of which a step sees 2."""
    y, x = np.mgrid[:12, :12] + 0.5
    image = 0.5 * (np.hypot(x - 5, y - 7) < 3) + 1.0 * (np.abs(x - 8) < 2) * (np.abs(y - 3) < 1)
    angle, offset = rng.uniform(0, np.pi, (16, 20, 1)), rng.uniform(-6, 6, (16, 20, 1))
    distance = np.cos(angle) * (x.ravel() - 6) + np.sin(angle) * (y.ravel() - 6) - offset
    rays = np.exp(-(distance**2)) / 6
    data = rays @ image.ravel() + 0.05 * rng.normal(size=(16, 20))

    def of(m: Array, shots: Any) -> tuple[float, Array]:
        error = rays[shots] @ m - data[shots]
        value = 8 * float(np.mean(np.sum(error**2, axis=1))) + 5e-3 * float(m @ m)
        return value, 16 * np.einsum("sr,srm->m", error, rays[shots]) / len(error) + 1e-2 * m

    return np.zeros(144), lambda m, rng: of(m, rng.choice(16, 2, replace=False)), lambda m: of(m, range(16))[0], 0.01


def stiff_quadratic(rng: np.random.Generator) -> Problem:
    """40 variables with curvatures from 1 to 10,000, turned against the axes."""
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    matrix = basis * np.logspace(-2, 2, 40) @ basis.T

    def draw(x: Array, rng: np.random.Generator) -> tuple[float, Array]:
        return truth(x) + rng.normal(), matrix @ x + rng.normal(size=40)

    def truth(x: Array) -> float:
        return 0.5 * float(x @ matrix @ x)

    return 3 * rng.normal(size=40), draw, truth, 0.01


def digits(rng: np.random.Generator) -> Problem:
    """Ten classes of 1,797 digits by a linear model, 650 weights, batches of 32."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.column_stack([data.data / 16, np.ones(len(data.data))])
    targets = np.eye(10)[data.target]

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        z = pixels[batch] @ x.reshape(65, 10)
        logs = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        error = np.exp(logs) - targets[batch]
        value = -np.sum(logs * targets[batch]) / len(z) + 1e-3 * x @ x
        return float(value), (pixels[batch].T @ error).ravel() / len(z) + 2e-3 * x

    return np.zeros(650), lambda x, rng: of(x, rng.integers(0, 1797, 32)), lambda x: of(x, slice(None))[0], 0.01


def factors(rng: np.random.Generator) -> Problem:
    """A table of 60 x 40 as a product of two of rank 4, 64 entries a step."""
    table = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 40)) + 0.3 * rng.normal(size=(60, 40))
    every = np.unravel_index(np.arange(2400), table.shape)

    def of(p: Array, row: Any, column: Any) -> tuple[float, Array]:
        left, right = p[:240].reshape(60, 4), p[240:].reshape(40, 4)
        error = np.sum(left[row] * right[column], axis=1) - table[row, column]
        gradient = np.zeros((100, 4))
        np.add.at(gradient, row, error[:, None] * right[column] / len(error))
        np.add.at(gradient, 60 + column, error[:, None] * left[row] / len(error))
        return 0.5 * float(np.mean(error**2)), gradient.ravel()

    start = 0.5 * rng.normal(size=400)
    draw = lambda p, rng: of(p, rng.integers(0, 60, 64), rng.integers(0, 40, 64))  # noqa: E731
    return start, draw, lambda p: of(p, *every)[0], 0.02


def circuit(rng: np.random.Generator) -> Problem:
    """Angles of 20 coupled rotations, whose energy and its slopes are measured by few shots."""
    phases, couplings = rng.uniform(0, 2 * np.pi, 20), rng.uniform(0.5, 1.5, 20)

    def truth(x: Array) -> float:
        return float(np.sum(np.cos(x - phases)) + np.sum(couplings * np.cos(x - np.roll(x, 1))))

    def draw(x: Array, rng: np.random.Generator) -> tuple[float, Array]:
        turns = couplings * np.sin(x - np.roll(x, 1))
        slope = -np.sin(x - phases) - turns + np.roll(turns, -1)
        return truth(x) + 0.4 * rng.normal(), slope + 0.4 * rng.normal(size=20)

    return rng.uniform(0, 2 * np.pi, 20), draw, truth, 0.02


def margins(rng: np.random.Generator) -> Problem:
    """Squared hinges of two kinds of wine against the third, 13 quantities, batches of 8."""
    from sklearn.datasets import load_wine

    data = load_wine()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    sign = np.where(data.target == 1, 1.0, -1.0)

    def of(x: Array, batch: Any) -> tuple[float, Array]:
        lack = np.maximum(1 - sign[batch] * (features[batch] @ x), 0)
        return float(np.mean(lack**2)) + 1e-2 * x @ x, -2 * features[batch].T @ (sign[batch] * lack) / len(lack) + 2e-2 * x

    return rng.normal(size=13), lambda x, rng: of(x, rng.integers(0, 178, 8)), lambda x: of(x, slice(None))[0], 0.01


PROBLEMS: dict[str, tuple[Callable[[np.random.Generator], Problem], int]] = {
    "linear fit, mini-batches": (linear_fit, 2000),
    "logistic fit, mini-batches": (logistic_fit, 4000),
    "inversion, 3 of 12 shots": (inversion, 4000),
    "noisy Rosenbrock, 2": (rosenbrock(2, 0.3), 8000),
    "noisy Rosenbrock, 100": (rosenbrock(100, 1.0), 12000),
    "network, mini-batches": (network, 8000),
    "Poisson fit, mini-batches": (poisson_fit, 4000),
    "robust fit, mini-batches": (robust_fit, 4000),
    "tumours, mini-batches": (tumours, 4000),
    "autoencoder, mini-batches": (autoencoder, 6000),
    "tomography, 2 of 16 shots": (tomography, 4000),
    "stiff quadratic": (stiff_quadratic, 10000),
}
# On which nothing was tuned. (Of those above, the first six were the first that were.)
HELD_OUT: dict[str, tuple[Callable[[np.random.Generator], Problem], int]] = {
    "digits, mini-batches": (digits, 5000),
    "factors, mini-batches": (factors, 4000),
    "circuit, few shots": (circuit, 4000),
    "margins, mini-batches": (margins, 4000),
}
RULES = ("noisy", "patience 20", "patience 100", "500 steps", "2000 steps")


def stops(problem: Problem, steps: int, rng: np.random.Generator) -> dict[str, tuple[float, bool]]:
    """The steps that each rule takes, against those of the oracle, and whether it stops falsely; all for one path."""
    start, draw, truth, lr = problem
    told = Told(start.copy())
    optimizer, plateau = fastopt.Adam(told.x, lr=lr), Plateau(told)
    patient = {f"patience {n}": NoImprovement(told, n, 0.0) for n in (20, 100)}
    fixed = {500: "500 steps", 2000: "2000 steps"}
    truths, found = np.zeros(steps), {}
    for told.nit in range(steps):
        told.value, told.gradient = draw(told.x, rng)
        truths[told.nit] = truth(told.x)
        plateau.see()
        if "noisy" not in found and plateau.reason() is not None:
            found["noisy"] = told.nit + 1, truth(plateau.mean)
        for name, test in patient.items():
            test.see()
            if name not in found and test.reason() is not None:
                found[name] = told.nit + 1, truths[told.nit]
        if told.nit + 1 in fixed:
            found[fixed[told.nit + 1]] = told.nit + 1, truths[told.nit]
        np.copyto(told.before, told.x)
        optimizer.step(told.gradient)
    last = truths[-steps // 4 :]
    level = last.mean() + 2 * last.std()
    smooth = np.convolve(truths, np.ones(AVERAGED) / AVERAGED, "valid")
    oracle = int(np.argmax(smooth <= level)) + AVERAGED
    never, limit = (steps, float(last.mean())), level + 0.01 * (truths[0] - level)
    return {name: (found.get(name, never)[0] / oracle, found.get(name, never)[1] > limit) for name in RULES}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.noise", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="paths of each problem")
    parser.add_argument("--problems", nargs="*", default=["known", "held-out"], choices=["known", "held-out"])
    arguments = parser.parse_args(argv)
    seeds = arguments.seeds
    print(f"steps against those of the oracle, median (90 of 100 are below), and false stops, of {seeds} paths")
    problems = (PROBLEMS if "known" in arguments.problems else {}) | (HELD_OUT if "held-out" in arguments.problems else {})
    for name, (make, steps) in problems.items():
        runs = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            runs.append(stops(make(rng), steps, rng))
        cells = []
        for rule in RULES:
            ratios = [run[rule][0] for run in runs]
            false = math.fsum(run[rule][1] for run in runs) / seeds
            cells.append(f"{rule}: {np.median(ratios):.2f} ({np.quantile(ratios, 0.9):.2f}), {100 * false:.0f} %")
        print(f"{name:27} {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
