"""The same cases under pytest-benchmark.

``pytest bench --benchmark-only`` runs all of them, which takes hours; choose with ``-k``, for example
``-k "Adam and float32 and 1e6"``. ``pytest bench --benchmark-disable -k 1e3`` runs each once, as a check that all work.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

import fastopt
from bench.cases import CASES, DTYPES, SIZES, Case
from bench.contenders import CONTENDERS, Contender, set_num_threads

MOST_THREADS = fastopt.get_num_threads()


def _label(size: int) -> str:
    return f"{size:.0e}".replace("+0", "")


def _runs(contender: Contender, case: Case, dtype: str) -> bool:
    return contender.has(case) and dtype in contender.dtypes and not contender.missing


def _params() -> Iterator[object]:
    for case, dtype, size, threads, contender in product(CASES, DTYPES, SIZES, sorted({1, MOST_THREADS}), CONTENDERS):
        # JAX can't change its number of threads once it has started.
        if _runs(contender, case, dtype) and (threads == MOST_THREADS or "jax" not in contender.requires):
            name = f"{case.name}-{dtype}-{_label(size)}-{threads}-{contender.name}".replace(" ", "-")
            yield pytest.param(case, dtype, size, threads, contender, id=name)


@pytest.mark.parametrize(("case", "dtype", "size", "threads", "contender"), list(_params()))
def test_step(benchmark, case: Case, dtype: str, size: int, threads: int, contender: Contender):
    """Time one contender's step."""
    set_num_threads(threads)
    step = contender.start(case.problem(size, dtype)).step
    for _ in range(2):  # what happens in the first calls only
        step()
    benchmark.group = f"{case.name}, {dtype}, {_label(size)} elements, {threads} threads"
    benchmark(step)
