"""What a run measures: cells of optimizer, options, dtype, size and threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.cases import CASES, SIZES, Case, with_option
from bench.contenders import LIMIT, OURS
from bench.options import OPTIONS

# What is shown at every size, and against everyone.
HEADLINE = ("SGD", "SGD momentum", "AdaGrad", "RMSProp", "Adam", "AdamW")
SMALL, LARGE, HUGE = 100_000, 10_000_000, 300_000_000

COMPILED = "PyTorch compile"  # takes seconds to compile for each cell
COMPILED_SIZES = (1_000, SMALL, LARGE)


class Cell(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    case : Case
        The optimizer, with its options.
    dtype : str
        Of all arrays.
    size : int
        Elements.
    threads : int
        How many everyone may use.
    only, without : tuple of str
        Contenders that alone are measured, if there are any; those that are left out.
    """

    case: Case
    dtype: str
    size: int
    threads: int
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def chosen(
    cases: Sequence[Case], options: Sequence[str], dtypes: Sequence[str], sizes: Sequence[int], threads: Sequence[int]
) -> list[Cell]:
    """All combinations, in tables by threads and size. Others have no options, or not in the same step."""
    return [
        Cell(with_option(case, option), dtype, size, count, only=(OURS, LIMIT) if option != "none" else ())
        for count, size, case, option, dtype in itertools.product(threads, sizes, cases, options, dtypes)
    ]


def report(threads: int) -> Iterator[Cell]:
    """Everything that the report shows, in a quarter of an hour."""
    by_name = {case.name: case for case in CASES}
    headline = [by_name[name] for name in HEADLINE]
    for size in SIZES:
        without = () if size in COMPILED_SIZES else (COMPILED,)
        yield from (Cell(case, "float32", size, threads, without=without) for case in headline)
    for case in headline[:1] + headline[4:5]:
        yield Cell(case, "float32", HUGE, threads, only=(OURS, LIMIT, "PyTorch fused"))
    for size in (SMALL, LARGE):
        yield from (Cell(case, "float64", size, threads, without=(COMPILED,)) for case in headline)
    yield from (Cell(case, "float32", LARGE, threads, without=(COMPILED,)) for case in CASES if case not in headline)
    for size in (SMALL, LARGE):
        yield from (
            Cell(with_option(by_name["Adam"], option), "float32", size, threads, only=(OURS, LIMIT)) for option in OPTIONS
        )
    yield from scaling(threads)


def quick(threads: int) -> Iterator[Cell]:
    """The same in short: few optimizers and sizes."""
    by_name = {case.name: case for case in CASES}
    for size in (1_000, SMALL, LARGE):
        yield from (Cell(by_name[name], "float32", size, threads, without=(COMPILED,)) for name in HEADLINE)
    yield from (Cell(by_name[name], "float32", LARGE, threads, without=(COMPILED,)) for name in ("RAdam", "Lion", "NAdam"))
    yield from scaling(threads)


def scaling(threads: int) -> Iterator[Cell]:
    """Large steps on 1, 2, 4, ... threads, but for all of them, which are measured anyway."""
    for count in (1 << i for i in range(threads.bit_length()) if 1 << i < threads):
        yield from (Cell(case, "float32", LARGE, count, only=(OURS, LIMIT)) for case in CASES if case.name in ("SGD", "Adam"))
