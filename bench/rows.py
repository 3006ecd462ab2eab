"""``python -m bench.rows``: steps of some rows of a table, next to PyTorch's SparseAdam, a streaming limit, and a loop in C.

Each step touches other rows, so that they come from memory, as they do in training. The *limit* is a loop that moves the same
rows in the same order: it loads all that a step loads, adds the gradient, and stores what a step stores; no duplicates are
looked for.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

import fastopt
from bench.contenders import set_num_threads
from bench.measure import interleaved

Step = Callable[[], object]
Batches = list[tuple[NDArray[Any], NDArray[Any]]]

OURS, LIMIT, TORCH = "fastopt", "limit", "SparseAdam"
TABLE, WIDTH, TOUCHED = 1_000_000, 64, 10_000
BATCHES = 20


class Case(NamedTuple):
    """What is measured: steps by contender; which one is the reference, and how many times as long as it they may take."""

    name: str
    steps: dict[str, Step]
    bars: dict[str, float]  # of fastopt, as ratios of times
    reference: str


def batches(count: int, rows: int = TABLE, width: int = WIDTH, zipf: float | None = None, seed: int = 0) -> Batches:
    """Rows and gradients of some steps: unique rows, or some of a Zipf distribution."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(BATCHES if count <= 100_000 else 3):
        if zipf is None:
            touched = rng.choice(rows, count, replace=False, shuffle=True)
        else:
            ranks = np.arange(1, rows + 1) ** -zipf
            touched = rng.permutation(rows)[np.searchsorted(np.cumsum(ranks) / ranks.sum(), rng.random(count))]
        made.append((touched, rng.standard_normal((count, width), np.float32)))
    return made


def table(rows: int = TABLE, width: int = WIDTH) -> NDArray[Any]:
    """A table whose pages are there."""
    return np.full((rows, width), 0.5, np.float32)


def in_turn(step: Callable[..., object], given: Sequence[Any]) -> Step:
    """A step that takes the next batch at each call."""
    following = itertools.cycle(given)
    return lambda: step(*next(following))


def ours(given: Batches, optimizer: Any = fastopt.Adam, **options: Any) -> Step:
    """Steps of fastopt."""
    rows, width = TABLE, given[0][1].shape[1]
    w = table(rows, width)
    made = optimizer(w, **options)
    for name in made.state:
        made.state[name][...] = 0.0  # whose pages are there, too
    return in_turn(made.step_rows, given)


@numba.njit(parallel=True, error_model="numpy")
def _move(theta, m, v, rows, grads, threads):
    for part in prange(threads):
        for k in range(len(rows) * part // threads, len(rows) * (part + 1) // threads):
            a, b, c, g = theta[rows[k]], m[rows[k]], v[rows[k]], grads[k]
            for j in range(g.size):
                a[j] += g[j]
                b[j] += g[j]
                c[j] += g[j]


def limit(given: Batches) -> Step:
    """What moves the same rows."""
    arrays = [table(width=given[0][1].shape[1]) for _ in range(3)]
    threads = fastopt.get_num_threads()
    return in_turn(lambda rows, grads: _move(*arrays, rows, grads, threads), given)


def sparse_adam(given: Batches) -> Step:
    """PyTorch's optimizer for sparse gradients."""
    import torch

    w = torch.nn.Parameter(torch.from_numpy(table(width=given[0][1].shape[1])))
    made = torch.optim.SparseAdam([w])
    sparse = [torch.sparse_coo_tensor(torch.from_numpy(rows)[None], torch.from_numpy(g), w.shape) for rows, g in given]

    def step(gradient: Any) -> None:
        w.grad = gradient
        made.step()

    return in_turn(step, [(each,) for each in sparse])
