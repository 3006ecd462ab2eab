"""``python -m bench``: how fast each optimizer's step is, against the streaming limit, NumPy and other libraries.

Without a selection it measures what the report shows: a quarter of an hour, or two minutes with ``--quick``.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastopt
from bench import in_cache, latency, plan, report, startup, threshold
from bench.cases import CASES, DTYPES, SIZES, elements
from bench.contenders import CONTENDERS, LIMIT, OURS, Contender, set_num_threads
from bench.measure import Result, interleaved
from bench.options import OPTIONS
from bench.plan import Cell
from bench.records import label, record
from fastopt.commands import info

PACKAGES = ("numba", "numpy", "torch", "jax", "optax", "deepspeed", "keras", "thinc", "scikit-learn", "pennylane")

LONG = 0.5  # seconds a round, from which on there are fewer


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench --help``."""
    parser = _parser()
    args = parser.parse_args(argv)
    rounds, block_seconds = (3, 0.01) if args.quick else (9, 0.02)
    most = fastopt.get_num_threads()
    selection = (args.optimizer, args.option, args.dtype, args.size, args.threads)
    if any(selection):
        everything = (CASES, ["none"], DTYPES, SIZES, [most])
        cells = plan.chosen(*(some or all_ for some, all_ in zip(selection, everything, strict=True)))
    else:
        cells = list((plan.quick if args.quick else plan.report)(most))
    threads = max(cell.threads for cell in cells)
    set_num_threads(threads)  # JAX keeps to the first number
    if args.contender:
        wanted = (OURS, *args.contender)
        cells = [cell._replace(only=tuple(name for name in wanted if name in (cell.only or wanted))) for cell in cells]
    environment = _environment()
    print(", ".join(f"{key} {value}" for key, value in environment.items()))
    for contender in CONTENDERS:
        if contender.missing:
            print(f"{contender.name} is left out: {' and '.join(contender.missing)} must be installed")
    print("A time is the median over the rounds. The columns after 'of limit' show how many times as long the others take:")
    print("the median of the rounds' ratios. Less than 1 means that the other one is faster.\n")
    records = []
    table = _Table([contender.name for contender in CONTENDERS if not contender.missing])
    for cell in tqdm(cells, unit="cell", disable=None):
        if result := _measured(cell, threads, rounds, block_seconds):
            records.append(record(result) | {"threads": cell.threads})
            table.add(records[-1])
    measured: dict[str, Any] = {"environment": environment, "results": records}
    if args.html or (args.json and not any(selection)):
        measured |= _details(args.quick, most)
    if args.html:
        args.html.write_text(report.page(measured), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(measured, indent=None, separators=(",", ":")).replace('{"optimizer"', '\n{"optimizer"'))


def _parser() -> argparse.ArgumentParser:
    names = dict.fromkeys([case.optimizer.__name__ for case in CASES] + [case.name for case in CASES])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--optimizer", action=_SelectCases, metavar="NAME", nargs="+", choices=names)
    parser.add_argument("--option", nargs="+", choices=["none", *OPTIONS], metavar="NAME", help=f"none, {', '.join(OPTIONS)}")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES)
    parser.add_argument("--size", nargs="+", type=elements, metavar="N", help="elements, such as 32e6")
    parser.add_argument("--threads", nargs="+", type=int, metavar="N")
    contenders = [contender.name for contender in CONTENDERS if contender.name != OURS]
    parser.add_argument(
        "--contender", nargs="+", choices=contenders, metavar="NAME", help=f"default: all of {', '.join(contenders)}"
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds, and without a selection few cells")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the times of every round")
    parser.add_argument("--html", type=Path, metavar="PATH", help="write a report with plots, which needs no network")
    return parser


class _SelectCases(argparse.Action):
    """Cases by their own name, or all of an optimizer by that of its class."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, [c for c in CASES if c.name in values or c.optimizer.__name__ in values])


def _measured(cell: Cell, threads: int, rounds: int, block_seconds: float) -> Result | None:
    """Let all contenders that know the case take turns; None, and a printed line, if memory is too small for that."""
    set_num_threads(cell.threads)
    known = [contender for contender in CONTENDERS if _takes_part(contender, cell, threads)]
    contenders = _fitting(known, cell)
    if left_out := [contender.name for contender in known if contender not in contenders]:
        tqdm.write(f"{cell.case.name}, {cell.dtype}, {cell.size:,} elements: no memory for {', '.join(left_out)}")
    if OURS not in (contender.name for contender in contenders):
        return None
    problem = cell.case.problem(cell.size, cell.dtype)
    steps = {contender.name: contender.start(problem).step for contender in contenders}
    result = Result(cell.case, cell.dtype, cell.size, interleaved(steps, rounds, block_seconds, LONG))
    del problem, steps
    gc.collect()
    return result


def _takes_part(contender: Contender, cell: Cell, threads: int) -> bool:
    is_wanted = contender.name in (cell.only or [contender.name]) and contender.name not in cell.without
    # JAX can't change its number of threads once it has started.
    can = cell.dtype in contender.dtypes and (cell.threads == threads or "jax" not in contender.requires)
    return is_wanted and can and contender.has(cell.case) and not contender.missing


def _fitting(contenders: Sequence[Contender], cell: Cell) -> list[Contender]:
    """As many of them, the first ones, as there is memory for."""
    array = cell.size * np.dtype(cell.dtype).itemsize
    # All share parameter and gradient but for some that copy both; each has its states and about one more, and one of them at a
    # time makes up to four temporaries.
    shared, own = 2 + 2 * 2 + 4, cell.case.arrays - 1
    fitting = max(0, int((_available_memory() / array - shared) // own))
    return list(contenders)[:fitting]


def _available_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _details(is_quick: bool, threads: int) -> dict[str, Any]:
    """What the report shows besides steps of all contenders."""
    set_num_threads(threads)
    rounds, sizes = (3, threshold.SIZES[::3]) if is_quick else (9, threshold.SIZES)
    details: dict[str, Any] = {
        "threshold": [record(r) | {"excess": threshold.excess(r)} for r in threshold.measured(sizes, rounds, 0.01)],
        "latency": latency.quantiles(1000 if is_quick else 20_000),
        "startup": startup.measured(1 if is_quick else 5),
    }
    if in_cache.compiler():
        set_num_threads(1)
        details["in_cache"] = [record(r) for r in in_cache.measured(in_cache.SIZE, rounds, 0.01)]
    set_num_threads(threads)
    return details


def _environment() -> dict[str, Any]:
    def versions() -> Iterator[tuple[str, str]]:
        for package in PACKAGES:
            try:
                yield package, importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue

    machine = {"CPU": info.cpu_name(), "CPUs": info.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    today = {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
    return today | machine | {"Python": platform.python_version(), "fastopt": fastopt.__version__} | dict(versions())


class _Table:
    """Rows on the terminal, as they come; a new head wherever the number of elements or of threads changes."""

    def __init__(self, contenders: Sequence[str]) -> None:
        others = [name for name in contenders if name not in (OURS, LIMIT)]
        names = [label(case.name, option) for case in CASES for option in ("none", *OPTIONS)]
        widths = {"optimizer": max(map(len, names)), "dtype": 7, OURS: 9, "GB/s": 6, "of limit": 8}
        self._widths = widths | {name: max(6, len(name)) for name in others}
        self._others = others
        self._head: tuple[int, int] | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Print a row."""
        head = record["size"], record["threads"]
        if head != self._head:
            self._head = head
            tqdm.write(f"\n{head[0]:,} elements, {head[1]} threads\n")
            tqdm.write(self._row(list(self._widths)))
            tqdm.write(self._row(["-" * width for width in self._widths.values()]))
        name, dtype, _, *cells = report.cells(record, self._others)
        tqdm.write(self._row([name, dtype, *cells]))

    def _row(self, cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(width) for c, width in zip(cells, self._widths.values(), strict=True)) + " |"


if __name__ == "__main__":
    main()
