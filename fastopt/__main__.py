"""The command line: ``python -m fastopt demo``, ``info``, ``doctor``, ``warmup``, ``c-api``, and in a clone ``bench``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastopt.commands.demo.systems import SYSTEMS
from fastopt.commands.warmup import USUAL, compile_ahead
from fastopt.description.hyperparameters import STATE_FORMATS

FORMATS = (".pdf", ".png", ".svg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        Exit code.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["bench"]:
        return _bench(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if options.command == "c-api":
        from fastopt.capi import library

        try:
            written = library.write(options.out, options.cpu, _tell, options.optimizer)
        except (OSError, RuntimeError, ValueError) as failure:
            parser.error(str(failure))
        print(*written, sep="\n")
        return 0
    if options.command == "warmup":
        try:
            for name, seconds in compile_ahead(options.optimizer, options.dtype, options.rows):
                print(f"{name:40} {seconds:7.2f} s", flush=True)
        except (TypeError, ValueError) as failure:
            parser.error(str(failure))
        return 0
    if options.command == "info":
        from fastopt.commands import info

        print(info.report())
        return 0
    if options.command == "doctor":
        from fastopt.commands import doctor

        found = doctor.findings()
        print(doctor.report(found))
        return int(any(finding.mend for finding in found))
    path = options.out or Path(f"fastopt-{options.problem}.png")
    if problem := _why_unwritable(path):
        parser.error(f"argument --out: {problem}")
    from fastopt.commands.demo import command

    command.run(options.problem, options.optimizer, options.epochs, options.seed, path, options.state)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastopt", description="Fused first-order optimizers for NumPy arrays.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    commands.add_parser("info", help="versions, processor, threads, cache and memory bandwidth")
    commands.add_parser(
        "doctor",
        help="what makes steps slow or wrong on this machine, and what mends it",
        description="Look for what makes steps slow or wrong on this machine, and say what mends it. The exit status is 0 if "
        "there is nothing to mend, else 1.",
    )
    _add_warmup(commands)
    commands.add_parser("bench", help="measure steps against the speed of memory and other libraries; in a clone only")
    _add_c_api(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="learn something with each optimizer, and time their steps against NumPy",
        description="Learn something with each optimizer, and time each step against the same step in in-place NumPy.",
    )
    demo.add_argument(
        "--problem",
        choices=("digits", "inversion"),
        default="digits",
        help="digits: a network in NumPy learns handwritten digits (default); inversion: a field of a million unknowns is "
        "recovered from what a simulation makes of it",
    )
    demo.add_argument(
        "--optimizer",
        action="append",
        choices=SYSTEMS,
        metavar="NAME",
        help=f"one of {', '.join(SYSTEMS)}; repeat it for several (default: all for digits, adam for inversion)",
    )
    demo.add_argument(
        "--epochs",
        type=_positive,
        help="how often to go through the data (default: 20; for inversion 120 steps)",
    )
    demo.add_argument("--seed", type=_nonnegative, default=0, help="for everything random (default: 0)")
    demo.add_argument(
        "--state",
        choices=STATE_FORMATS,
        help="keep states in this format, rounded stochastically if it has 16 or 8 bits (default: float32)",
    )
    demo.add_argument("--out", type=Path, metavar="PATH", help="the picture (default: fastopt-<problem>.png in this folder)")


def _add_warmup(commands: Any) -> None:
    warmup = commands.add_parser(
        "warmup",
        help="compile kernels to the cache, so that no process waits for the compiler",
        description="Compile the kernels of some optimizers to the cache on disk, or find them there.",
    )
    warmup.add_argument(
        "--optimizer",
        nargs="+",
        default=USUAL,
        metavar="NAME",
        help=f"as SGD or SGD,momentum=0.9,nesterov=True, with any argument that its class takes (default: {' '.join(USUAL)})",
    )
    warmup.add_argument("--dtype", nargs="+", default=("float32", "float64"), metavar="DTYPE", help="default: float32 float64")
    warmup.add_argument("--rows", action="store_true", help="also what steps of touched rows need")


def _add_c_api(commands: Any) -> None:
    c_api = commands.add_parser(
        "c-api",
        help="a library for C, C++ and Fortran",
        description="Write fastopt.h, fastopt.f90 and libfastopt.so, which needs no Python; a C compiler must be installed.",
    )
    c_api.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; made if it isn't there")
    c_api.add_argument(
        "--optimizer",
        nargs="+",
        metavar="NAME",
        help="the functions, as the header calls them: adam, momentum, rmsprop_rates, say (default: all)",
    )
    c_api.add_argument(
        "--cpu",
        metavar="NAME",
        help="the processor that will run it, as the C compiler calls it: x86-64-v3, say, where login and compute nodes "
        "differ (default: this one)",
    )


def _tell(name: str) -> None:
    """Say what is compiled now."""
    print(name, file=sys.stderr, flush=True)


def _bench(arguments: list[str]) -> int:
    """Run the benchmarks, which are no part of the package."""
    if importlib.util.find_spec("bench") is None or importlib.util.find_spec("bench.cases") is None:
        print("fastopt: the benchmarks are in the repository: run this in a clone of it", file=sys.stderr)
        return 2
    measure = importlib.import_module("bench.__main__").main
    measure(arguments)
    return 0


def _positive(text: str) -> int:
    if (number := _nonnegative(text)) == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _nonnegative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def _why_unwritable(path: Path) -> str | None:
    """What stands against a picture at this path, known before the work begins."""
    if path.suffix.lower() not in FORMATS:
        return f"must end in {', '.join(FORMATS)}, got '{path}'"
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        return f"can't write to '{path}'"
    return None


if __name__ == "__main__":
    raise SystemExit(main())
