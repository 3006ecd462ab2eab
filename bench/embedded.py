"""``python -m bench.embedded``: rules inside of other programs, and what it costs to call them from there."""

from __future__ import annotations

import argparse
import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numba
import numpy as np

import fastopt
from bench.measure import interleaved
from fastopt import capi
from fastopt.capi import library as clibrary

adam = fastopt.embed(fastopt.Adam, np.float32, lr=1e-3)
rule, values = adam.rule, adam.values

C_PROGRAM = """
#include <math.h>
#include <stdio.h>
#include <time.h>
#include "fastopt.h"

static double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;

/* What a call for one element computes, written down in place. */
static void adam(double *theta, const double *g, double *m, double *v, int t) {
  double bias2 = 1.0 - pow(beta2, t), factor = sqrt(bias2), debias = factor / (1.0 - pow(beta1, t));
  m[0] = beta1 * m[0] + (1.0 - beta1) * g[0];
  v[0] = beta2 * v[0] + (1.0 - beta2) * g[0] * g[0];
  theta[0] -= lr * debias * (m[0] / (sqrt(v[0]) + eps * factor));
}

int main(void) {
  double theta[1] = {0}, g[1] = {1}, m[1] = {0}, v[1] = {0};
  const int calls = 2000000;
  struct timespec begin, end;
  for (int name = 0; name < 3; ++name) {
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 1; i <= calls; ++i) {
      if (name == 0) fastopt_sgd_f64(1, theta, g, i, lr, 1.0, -INFINITY, INFINITY);
      else if (name == 1) fastopt_adam_f64(1, theta, g, m, v, i, lr, beta1, beta2, eps, 0.0, 1.0, -INFINITY, INFINITY);
      else adam(theta, g, m, v, i);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%g\\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / calls);
  }
  return 0;
}
"""


@numba.njit(parallel=True, error_model="numpy")
def with_rule(w, m, v, target, row):
    """A step towards a target, by the library's rule."""
    numbers = values(row)
    for i in numba.prange(w.size):
        w[i], m[i], v[i] = rule(w[i], w[i] - target[i], numbers[0], m[i], v[i], *numbers[1:])


@numba.njit(parallel=True, error_model="numpy")
def by_hand(w, m, v, target, lr, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, eps):
    """The same, with the formula written down."""
    for i in numba.prange(w.size):
        g = w[i] - target[i]
        m[i] = beta1 * m[i] + one_minus_beta1 * g
        v[i] = beta2 * v[i] + one_minus_beta2 * g * g
        w[i] = w[i] - lr * debias * (m[i] / (np.sqrt(v[i]) + eps))


@numba.njit(parallel=True, error_model="numpy")
def fused_stencil(theta, new, m, v, data, smooth, row):
    """A step of an inversion whose gradient needs the neighbours, at once."""
    numbers = values(row)
    for i in numba.prange(1, theta.shape[0] - 1):
        for j in range(1, theta.shape[1] - 1):
            near = theta[i - 1, j] + theta[i + 1, j] + theta[i, j - 1] + theta[i, j + 1]
            g = theta[i, j] - data[i, j] + smooth * (numba.float32(4) * theta[i, j] - near)
            new[i, j], m[i, j], v[i, j] = rule(theta[i, j], g, numbers[0], m[i, j], v[i, j], *numbers[1:])


@numba.njit(parallel=True, error_model="numpy")
def gradient_of_stencil(theta, g, data, smooth):
    """The gradient alone."""
    for i in numba.prange(1, theta.shape[0] - 1):
        for j in range(1, theta.shape[1] - 1):
            near = theta[i - 1, j] + theta[i + 1, j] + theta[i, j - 1] + theta[i, j + 1]
            g[i, j] = theta[i, j] - data[i, j] + smooth * (numba.float32(4) * theta[i, j] - near)


def rule_against_hand(size: int, rounds: int) -> None:
    """The rule in a loop of one's own, against its formula written down, on the same arrays."""
    w, m, v = (np.zeros(size, np.float32) for _ in range(3))
    target = np.ones(size, np.float32)
    row = adam.table(1)[0]
    lr, *coefficients = map(np.float32, row)
    beta1, one_minus_beta1, beta2, one_minus_beta2, debias, _, eps = coefficients
    steps = {
        "rule": lambda: with_rule(w, m, v, target, row),
        "by hand": lambda: by_hand(w, m, v, target, lr, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, eps),
    }
    _print(f"the rule in one's own loop, {size:,} elements", interleaved(steps, rounds, 0.05), "by hand")


def stencil(side: int, rounds: int) -> None:
    """Gradient and step in one loop, against one after the other."""
    shape = (side, side)
    theta, new, m, v, g = (np.zeros(shape, np.float32) for _ in range(5))
    data = np.random.default_rng(0).standard_normal(shape, np.float32)
    smooth, row = np.float32(0.5), adam.table(1)[0]
    optimizer = fastopt.Adam(theta)

    def separately() -> None:
        gradient_of_stencil(theta, g, data, smooth)
        optimizer.step(g)

    steps = {"in one loop": lambda: fused_stencil(theta, new, m, v, data, smooth, row), "gradient, then step": separately}
    _print(f"an inversion with a stencil, {side} x {side}", interleaved(steps, rounds, 0.05), "in one loop")


def c_calls() -> None:
    """What a call from C takes for one element."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clibrary.write(folder)
        (folder / "program.c").write_text(C_PROGRAM)
        command = [shutil.which("cc") or "cc", "-O2", "program.c", "-o", "program", "-L.", "-lfastopt", "-lm", "-Wl,-rpath,."]
        subprocess.run(command, cwd=folder, check=True)
        times = [subprocess.run(["./program"], cwd=folder, check=True, capture_output=True).stdout.split() for _ in range(5)]
    sgd, adam, in_place = np.median(np.array(times, float), axis=0)
    print(
        f"a call from C, 1 element: sgd {sgd:.1f} ns, adam {adam:.1f} ns; adam's formula in place of a call {in_place:.1f} ns"
    )
    empty = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, *[ctypes.c_void_p] * 2, ctypes.c_int64, *[ctypes.c_double] * 4)
    assert empty(capi.address("sgd"))(0, None, None, 1, 0.1, 1.0, -math.inf, math.inf) == 0


def minimization(rounds: int) -> None:
    """What `minimize` adds to the user's function."""
    from scipy.optimize import rosen, rosen_der

    x = np.full(10, 1.1)
    g = rosen_der(x)
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        fastopt.minimize(rosen, x, jac=lambda x: g, options={"maxiter": 2000, "lr": 1e-6})
        seconds.append((time.perf_counter() - begin) / 2000)
    print(f"minimize, 10 variables, a step besides the user's function: {1e6 * np.median(seconds):.2f} us")
    size = 10_000_000
    w, g = np.zeros(size), np.ones(size)
    optimizer = fastopt.Adam(w, lr=1e-6)
    steps = {
        "bare steps": lambda: [optimizer.step(g) for _ in range(20)],
        "minimize": lambda: fastopt.minimize(lambda x: 0.0, w, jac=lambda x: g, options={"maxiter": 20, "lr": 1e-6}),
    }
    _print("20 steps of 10,000,000 variables, with all before and after", interleaved(steps, rounds, 0.01), "bare steps")
    times = _inside(w, g, steps=20, rounds=rounds)
    for name, others in (("bare", "bare steps"), ("copied", "bare steps, each with a copy of the point")):
        ratio = np.median(np.divide(times["minimize"], times[name]))
        print(f"the same, from the first step to the last: {ratio:.3f} times as long as {others}")


def _inside(w: np.ndarray, g: np.ndarray, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds from the first to the last gradient, within `minimize` and around bare steps on arrays that were touched."""
    times: dict[str, list[float]] = {"minimize": [], "bare": [], "copied": []}
    copy = np.ones_like(w)
    for _ in range(rounds):
        stamps: list[float] = []

        def gradient(x: np.ndarray, stamps: list[float] = stamps) -> np.ndarray:
            stamps.append(time.perf_counter())
            return g

        fastopt.minimize(lambda x: 0.0, w, jac=gradient, options={"maxiter": steps + 3, "lr": 1e-6})
        times["minimize"].append(stamps[-1] - stamps[3])
        optimizer = fastopt.Adam(w.copy(), lr=1e-6)
        for _ in range(3):
            optimizer.step(g)
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.step(g)
        times["bare"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for _ in range(steps):
            np.copyto(copy, optimizer.params)
            optimizer.step(g)
        times["copied"].append(time.perf_counter() - begin)
    return times


def background(size: int, rounds: int) -> None:
    """Steps in the background, while this thread computes as long in plain Python and NumPy as a step takes."""
    w, g = np.zeros(size, np.float32), np.ones(size, np.float32)
    optimizer = fastopt.Adam(w)
    other = np.random.default_rng(0).standard_normal((1200, 1200))

    def work() -> None:
        np.sort(other, axis=0)

    def after() -> None:
        optimizer.step(g)
        work()

    def meanwhile() -> None:
        future = optimizer.step_async(g)
        work()
        future.result()

    steps = {"one after the other": after, "in the background": meanwhile, "step": lambda: optimizer.step(g), "work": work}
    _print(f"a step of {size:,} elements and other work", interleaved(steps, rounds, 0.05), "in the background")


def _print(title: str, seconds: dict[str, list[float]], reference: str) -> None:
    print(f"\n{title}")
    for name, times in seconds.items():
        low, median, high = np.percentile(np.divide(times, seconds[reference]), [25, 50, 75])
        print(f"  {name:22} {1e3 * np.median(times):9.3f} ms  {median:6.3f} ({low:.3f} to {high:.3f})")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.embedded", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few short rounds on small arrays")
    quick = parser.parse_args(argv).quick
    rounds = 3 if quick else 15
    for size in (10_000,) if quick else (100_000, 32_000_000):
        rule_against_hand(size, rounds)
    stencil(200 if quick else 4000, rounds)
    print()
    c_calls()
    if not quick:
        minimization(rounds)
        background(8_000_000, rounds)


if __name__ == "__main__":
    main()
