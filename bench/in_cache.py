"""``python -m bench.in_cache``: one thread on arrays that the caches hold, against loops in C.

Here it is the instructions that count. The loops are what one writes by hand, one for each optimizer and dtype. They are
compiled with ``-O3 -march=native``, and once more with ``-fno-math-errno``, without which GCC takes roots one by one: the
function of the C library also sets ``errno``. fastopt's time is that of ``step``, from Python and back.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.cases import CASES, DTYPES, Case, elements
from bench.contenders import OURS
from bench.measure import Result, interleaved
from fastopt.arrays.layout import address

SIZE = 100_000
FLAGS = {"C": ("-O3", "-march=native"), "C, no errno": ("-O3", "-march=native", "-fno-math-errno")}

# By case: what a step does to element i, with the states s and r, and the coefficients a, b, ... of `COEFFICIENTS`.
BODIES = {
    "SGD": "theta[i] -= a * g[i];",
    "SGD momentum": "s[i] = b * s[i] + g[i]; theta[i] -= a * s[i];",
    "AdaGrad": "s[i] += g[i] * g[i]; theta[i] -= a * g[i] / (SQRT(s[i]) + b);",
    "RMSProp": "s[i] = b * s[i] + c * g[i] * g[i]; theta[i] -= a * g[i] / (SQRT(s[i]) + d);",
    "Adam": "s[i] = b * s[i] + c * g[i]; r[i] = d * r[i] + e * g[i] * g[i]; theta[i] -= a * s[i] / (SQRT(r[i]) + f);",
    "AdamW": "s[i] = b * s[i] + c * g[i]; r[i] = d * r[i] + e * g[i] * g[i];"
    " theta[i] = (1 - h) * theta[i] - a * s[i] / (SQRT(r[i]) + f);",
    "Lion": "T u = b * s[i] + c * g[i]; theta[i] -= a * ((u > 0) - (u < 0)); s[i] = d * s[i] + e * g[i];",
}
SCALARS = "abcdefh"

FUNCTION = """
void {name}(long n, void *p0, const void *p1, void *p2, void *p3, const double *k)
{{
  typedef {dtype} T;
  T *restrict theta = p0, *restrict s = p2, *restrict r = p3;
  const T *restrict g = p1;
  const T {scalars};
  for (long i = 0; i < n; ++i) {{ {body} }}
}}
"""


def coefficients(name: str, lr: float, hyper: dict[str, Any], t: int) -> list[float]:
    """The numbers a, b, ... of a body."""
    if name == "SGD":
        return [lr]
    if name == "SGD momentum":
        return [lr, hyper["momentum"]]
    if name == "AdaGrad":
        return [lr, hyper["eps"]]
    if name == "RMSProp":
        return [lr, hyper["rho"], 1.0 - hyper["rho"], hyper["eps"]]
    if name == "Lion":
        beta1, beta2 = hyper.get("betas", (0.9, 0.99))
        return [lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2]
    beta1, beta2 = hyper.get("betas", (0.9, 0.999))
    root = np.sqrt(1.0 - beta2**t)
    common = [lr * root / (1.0 - beta1**t), beta1, 1.0 - beta1, beta2, 1.0 - beta2, hyper.get("eps", 1e-8) * root]
    return [*common, lr * hyper.get("weight_decay", 0.01)]


def compiler() -> str | None:
    """The machine's C compiler, if there is one."""
    return shutil.which("cc")


@functools.cache
def library(flags: tuple[str, ...]) -> ctypes.CDLL:
    """All loops, compiled."""
    return built("#include <math.h>\n" + "".join(_functions()), flags)


def built(source: str, flags: Sequence[str]) -> ctypes.CDLL:
    """A library of functions in C."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "loops.c").write_text(source)
        command = [compiler() or "cc", *flags, "-shared", "-fPIC", "loops.c", "-o", "loops.so", "-lm"]
        subprocess.run(command, cwd=folder, check=True)
        return ctypes.CDLL(str(folder / "loops.so"))
    finally:
        shutil.rmtree(folder)


def _functions() -> Iterator[str]:
    scalars = ", ".join(f"{letter} = k[{i}]" for i, letter in enumerate(SCALARS))
    for i, body in enumerate(BODIES.values()):
        for dtype, c_type, root in (("float32", "float", "sqrtf"), ("float64", "double", "sqrt")):
            yield FUNCTION.format(name=f"{dtype}_{i}", dtype=c_type, scalars=scalars, body=body.replace("SQRT", root))


def start(case: Case, size: int, dtype: str, flags: tuple[str, ...], t: int) -> tuple[Callable[[], object], NDArray[Any]]:
    """A step by a loop in C, as it is at step `t`, and the parameter that it updates."""
    _, theta, g, lr = case.problem(size, dtype)
    arrays = [theta, g, np.zeros_like(theta), np.zeros_like(theta)]
    numbers = np.zeros(len(SCALARS))
    given = coefficients(case.name, lr, case.hyper, t)
    numbers[: len(given)] = given
    function = getattr(library(flags), f"{dtype}_{list(BODIES).index(case.name)}")
    function.restype = None
    arguments = [ctypes.c_long(size), *(ctypes.c_void_p(address(array)) for array in (*arrays, numbers))]
    kept = (arrays, numbers)

    def step(kept: object = kept) -> None:  # as long as there is the step, there are its arrays
        function(*arguments)

    return step, theta


def measured(size: int, rounds: int, block_seconds: float) -> Iterator[Result]:
    """Times of all cases that there are loops for."""
    for case in (case for case in CASES if case.name in BODIES):
        for dtype in DTYPES:
            _, theta, g, lr = case.problem(size, dtype)
            steps: dict[str, Callable[[], object]] = {OURS: functools.partial(case.start(theta, lr).step, g)}
            steps |= {name: start(case, size, dtype, flags, 1000)[0] for name, flags in FLAGS.items()}
            yield Result(case, dtype, size, interleaved(steps, rounds, block_seconds))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.in_cache --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.in_cache", description=__doc__)
    parser.add_argument("--size", type=elements, default=SIZE, metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args(argv)
    if compiler() is None:
        parser.error("a C compiler must be installed")
    fastopt.set_num_threads(1)
    print(f"{args.size:,} elements, one thread; how many times as long C takes, with quartiles\n")
    print(f"{'optimizer':14} {'dtype':8} {'fastopt':>10}  " + "  ".join(f"{name:22}" for name in FLAGS))
    for result in measured(args.size, args.rounds, 0.02):
        ratios = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*result.ratio(name, OURS)) for name in FLAGS]
        cells = [f"{ratio:22}" for ratio in ratios]
        print(f"{result.case.name:14} {result.dtype:8} {1e6 * result.median(OURS):7.1f} us  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
