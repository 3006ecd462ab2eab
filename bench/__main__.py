"""``python -m bench``: one table per size with the speed of every optimizer, and how much longer the others take."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastopt
from bench import report, startup
from bench.cases import CASES, DTYPES, SIZES, Case
from bench.contenders import CONTENDERS, Contender, set_num_threads
from bench.latency import latencies
from bench.measure import Result, interleaved

OURS, LIMIT, *OTHERS = [contender.name for contender in CONTENDERS]

# Name and width of each column.
COLUMNS = {"optimizer": max(len(case.name) for case in CASES), "dtype": 7, OURS: 9, "GB/s": 6, "of limit": 8} | dict.fromkeys(
    OTHERS, 19
)

SCALING_SIZE = 10_000_000  # elements

PACKAGES = ("numba", "numpy", "torch", "jax", "optax")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench --help``."""
    args = _parser().parse_args(argv)
    rounds, block_seconds = (3, 0.01) if args.quick else (15, 0.05)
    set_num_threads(args.threads)
    environment = _environment(args.threads)
    print(", ".join(f"{key} {value}" for key, value in environment.items()))
    for contender in CONTENDERS:
        if contender.missing:
            print(f"{contender.name} is left out: {' and '.join(contender.missing)} must be installed")
    print(f"Times are medians of {rounds} rounds. The columns after 'of limit' show how many times as long the others take:")
    print("the median of the rounds' ratios, and their quartiles. Less than 1 means that the other one is faster.")
    results: list[Result] = []
    for size in args.size:
        print(f"\n{size:,} elements\n")
        print(_row(list(COLUMNS)))
        print(_row(["-" * width for width in COLUMNS.values()]))
        for case, dtype in ((case, dtype) for case in args.optimizer for dtype in args.dtype):
            if result := _measured(case, dtype, size, rounds, block_seconds):
                results.append(result)
                print(_row(_cells(result)), flush=True)
    if not (args.json or args.html):
        return
    measured: dict[str, Any] = {"environment": environment, "results": [_record(r) for r in results]}
    if args.html:
        measured["scaling"] = list(_scaling(args.threads, rounds, block_seconds))
        measured["latency"] = latencies(500 if args.quick else 5000)
        measured["startup"] = startup.measured(1 if args.quick else 5)
        args.html.write_text(report.page(measured), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))


def _scaling(threads: int, rounds: int, block_seconds: float) -> Iterator[dict[str, Any]]:
    """Large steps of two optimizers with 1, 2, 4, ... threads."""
    counts = sorted({*(2**i for i in range(threads.bit_length()) if 2**i <= threads), threads})
    for count in counts:
        set_num_threads(count)
        for case in (case for case in CASES if case.name in ("SGD", "Adam")):
            problem = case.problem(SCALING_SIZE, "float32")
            steps = {contender.name: contender.start(problem).step for contender in CONTENDERS[:2]}
            seconds = interleaved(steps, min(rounds, 7), block_seconds)
            yield {"optimizer": case.name, "threads": count, "bytes": case.traffic(SCALING_SIZE, "float32"), "seconds": seconds}
    set_num_threads(threads)


def _parser() -> argparse.ArgumentParser:
    names = dict.fromkeys([case.optimizer.__name__ for case in CASES] + [case.name for case in CASES])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--optimizer", action=_SelectCases, default=CASES, metavar="NAME", nargs="+", choices=names)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--size", nargs="+", type=_size, default=SIZES, metavar="N", help="elements, such as 32e6")
    parser.add_argument("--threads", type=int, default=fastopt.get_num_threads(), metavar="N")
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the times of every round")
    parser.add_argument("--html", type=Path, metavar="PATH", help="write a report, with thread scaling, latency and cold start")
    return parser


class _SelectCases(argparse.Action):
    """Cases by their own name, or all of an optimizer by that of its class."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, [c for c in CASES if c.name in values or c.optimizer.__name__ in values])


def _size(text: str) -> int:
    return int(float(text))


def _measured(case: Case, dtype: str, size: int, rounds: int, block_seconds: float) -> Result | None:
    """Let all contenders that know the case take turns; None, and a printed line, if memory is too small for that."""
    contenders = [contender for contender in CONTENDERS if contender.has(case) and not contender.missing]
    if (needed := _bytes_needed(case, dtype, size, contenders)) > (available := _available_memory()):
        print(f"{case.name} {dtype} is left out: it needs {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available")
        return None
    problem = case.problem(size, dtype)
    steps = {contender.name: contender.start(problem).step for contender in contenders}
    result = Result(case, dtype, size, interleaved(steps, rounds, block_seconds))
    del problem, steps
    gc.collect()
    return result


def _bytes_needed(case: Case, dtype: str, size: int, contenders: Sequence[Contender]) -> int:
    # Each contender may hold all that a step touches, and while one runs there may be four temporaries.
    arrays = len(contenders) * case.arrays + 4
    return arrays * size * np.dtype(dtype).itemsize


def _available_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _environment(threads: int) -> dict[str, Any]:
    def versions() -> Iterator[tuple[str, str]]:
        for package in PACKAGES:
            try:
                yield package, importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue

    machine = {"machine": platform.machine(), "CPUs": os.cpu_count(), "threads": threads}
    return machine | {"Python": platform.python_version(), "fastopt": fastopt.__version__} | dict(versions())


def _cells(result: Result) -> list[str]:
    share = result.ratio(LIMIT, OURS)[1]
    return [
        result.case.name,
        result.dtype,
        _duration(result.median(OURS)),
        f"{result.bandwidth(OURS) / 1e9:.1f}",
        f"{share:.0%}",
        *(_comparison(result, name) for name in OTHERS),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _comparison(result: Result, name: str) -> str:
    if name not in result.seconds:
        return "-"
    low, median, high = result.ratio(name, OURS)
    return f"{_number(median)} ({_number(low)} to {_number(high)})"


def _number(x: float) -> str:
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=True)) + " |"


def _record(result: Result) -> dict[str, Any]:
    return {
        "optimizer": result.case.name,
        "dtype": result.dtype,
        "size": result.size,
        "bytes": result.case.traffic(result.size, result.dtype),
        "seconds": result.seconds,
    }


if __name__ == "__main__":
    main()
