"""Each example by one call of `fastopt.minimize`, by SciPy's L-BFGS-B, and by a loop written by hand.

``python examples/compare.py`` prints the evaluations, the time and what came out.
"""

import argparse
import importlib
import time

import numpy as np
import scipy.optimize

import fastopt

EXAMPLES = ("inverse_design", "parameter_fit", "phase_retrieval")


class Counted:
    """A function that counts its calls."""

    def __init__(self, fun):
        self._fun, self.calls = fun, 0

    def __call__(self, x):
        """The value and the gradient."""
        self.calls += 1
        return self._fun(x)


def by_fastopt(example, fun, steps):
    """One call."""
    options = {**example.options, "maxiter": min(steps, example.options["maxiter"])}
    return fastopt.minimize(fun, example.x0, jac=True, bounds=example.bounds, options=options).x


def by_scipy(example, fun, steps):
    """L-BFGS-B, which takes complex numbers as pairs of real ones."""
    if example.x0.dtype.kind != "c":
        own = {"method": "L-BFGS-B", "bounds": example.bounds, "options": {"maxiter": steps}}
        return scipy.optimize.minimize(fun, example.x0, jac=True, **own).x

    def of_parts(parts):
        value, g = fun(parts.view(complex))
        return value, g.view(float)

    start, own = example.x0.view(float), {"method": "L-BFGS-B", "options": {"maxiter": steps}}
    return scipy.optimize.minimize(of_parts, start, jac=True, **own).x.view(complex)


def by_hand(example, fun, steps):
    """Adam as one writes it, for all the steps that there may be."""
    size = example.options.get("x_scale", 1.0)
    z, m, v = example.x0 / size, 0.0, 0.0
    for t in range(1, min(steps, example.options["maxiter"]) + 1):
        g = size * fun(z * size)[1]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * np.abs(g) ** 2
        z = z - example.options["lr"] * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if example.bounds is not None:
            z = np.clip(z, *(np.array(example.bounds).T / size))
    return z * size


METHODS = {"fastopt.minimize": by_fastopt, "L-BFGS-B": by_scipy, "loop by hand": by_hand}


def compare(steps=10_000):
    """Rows of a table: example, method, evaluations, seconds, what came out."""
    for name in EXAMPLES:
        example = importlib.import_module(name)
        fastopt.minimize(example.fun, example.x0, jac=True, bounds=example.bounds, options={**example.options, "maxiter": 1})
        for method, solve in METHODS.items():
            fun = Counted(example.fun)
            begin = time.perf_counter()
            x = solve(example, fun, steps)
            yield name, method, fun.calls, time.perf_counter() - begin, example.quality(x)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="at most so many steps, or what an example says")
    print(f"{'example':16} {'method':17} {'evaluations':>11} {'seconds':>8} {'result':>10}")
    for name, method, calls, seconds, result in compare(parser.parse_args().steps):
        print(f"{name:16} {method:17} {calls:11} {seconds:8.2f} {result:10.3g}")


if __name__ == "__main__":
    main()
