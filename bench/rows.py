"""``python -m bench.rows``: steps of some rows of a table, next to SparseAdam, FBGEMM, a streaming limit and a loop in C.

Each step touches other rows, so that they come from memory, as they do in training. The *limit* is a loop that moves the same
rows in the same order: it loads all that a step loads, adds the gradient, and stores what a step stores, as one writes it down,
or with rows fetched ahead. It looks for no duplicates, nor does the loop in C, which is row-wise AdaGrad as one writes it by
hand. FBGEMM's kernel does, where it is installed (``fbgemm-gpu-cpu``).
"""

from __future__ import annotations

import argparse
import ctypes
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
from bench.in_cache import built, compiler
from bench.measure import interleaved
from fastopt.arrays.layout import address
from fastopt.engine.pieces import prefetch

Step = Callable[[], object]
Batches = list[tuple[NDArray[Any], NDArray[Any]]]

OURS, LIMIT, TORCH, FBGEMM, C = "fastopt", "limit", "SparseAdam", "FBGEMM", "C"
TABLE, WIDTH, TOUCHED = 1_000_000, 64, 10_000
BATCHES = 20


class Case(NamedTuple):
    """What is measured: steps by contender, and how many times as long as the reference fastopt may take."""

    name: str
    steps: dict[str, Step]
    reference: str
    bar: float


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
    made = optimizer(table(width=given[0][1].shape[1]), **options)
    for state in made.state.values():
        state[...] = 0.0  # whose pages are there, too
    return in_turn(made.step_rows, given)


def of_several(given: Batches, count: int) -> Step:
    """The same rows in so many tables."""
    size = TABLE // count
    made = fastopt.Adam([table(size) for _ in range(count)])
    for states in made.state.values():
        for state in states:
            state[...] = 0.0
    split = []
    for rows, grads in given:
        places = [np.flatnonzero(rows // size == t) for t in range(count)]
        split.append(([rows[at] % size for at in places], [grads[at] for at in places]))
    return in_turn(made.step_rows, split)


@numba.njit(parallel=True, error_model="numpy")
def _move(theta, m, v, places, ahead, rows, grads, threads):
    row_bytes = theta.strides[0]
    for part in prange(threads):
        end = len(rows) * (part + 1) // threads
        for k in range(len(rows) * part // threads, end):
            for place in places:
                if ahead:
                    prefetch(place + rows[min(k + ahead, end - 1)] * row_bytes, row_bytes)
            a, b, c, g = theta[rows[k]], m[rows[k]], v[rows[k]], grads[k]
            for j in range(g.size):
                a[j] += g[j]
                b[j] += g[j]
                c[j] += g[j]


def limit(given: Batches, ahead: int = 0) -> Step:
    """What moves the same rows, and fetches so many of them ahead."""
    arrays = [table(width=given[0][1].shape[1]) for _ in range(3)]
    places, threads = tuple(map(address, arrays)), fastopt.get_num_threads()
    return in_turn(lambda rows, grads: _move(*arrays, places, ahead, rows, grads, threads), given)


def sparse_adam(given: Batches) -> Step:
    """PyTorch's optimizer for sparse gradients."""
    import torch

    w = torch.nn.Parameter(torch.from_numpy(table(width=given[0][1].shape[1])))
    made = torch.optim.SparseAdam([w])
    sparse = [
        torch.sparse_coo_tensor(torch.from_numpy(rows)[None], torch.from_numpy(g), w.shape, check_invariants=True)
        for rows, g in given
    ]

    def step(gradient: Any) -> None:
        w.grad = gradient
        made.step()

    return in_turn(step, [(each,) for each in sparse])


SOURCE = """
#include <math.h>
void adagrad(float *w, float *r, const long *rows, const float *grads, long count, long width, float lr, float eps, int threads)
{
  #pragma omp parallel for num_threads(threads)
  for (long k = 0; k < count; ++k) {
    float *theta = w + rows[k] * width;
    const float *g = grads + k * width;
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (long j = 0; j < width; ++j) sum += g[j] * g[j];
    float step = lr / (sqrtf(r[rows[k]] += sum / width) + eps);
    for (long j = 0; j < width; ++j) theta[j] -= step * g[j];
  }
}
"""


def in_c(given: Batches, lr: float = 0.01, eps: float = 1e-10) -> Step:
    """Row-wise AdaGrad of rows that are unique."""
    width = given[0][1].shape[1]
    w, r = table(width=width), np.zeros(TABLE, np.float32)
    function = built(SOURCE, ("-O3", "-march=native", "-fopenmp")).adagrad
    function.restype = None
    others = ctypes.c_float(lr), ctypes.c_float(eps), fastopt.get_num_threads()
    pointers = [[ctypes.c_void_p(address(array)) for array in batch] for batch in given]
    sizes = ctypes.c_long(len(given[0][0])), ctypes.c_long(width)

    def step(rows: Any, grads: Any, kept: Any = (w, r)) -> None:
        function(*(ctypes.c_void_p(address(array)) for array in kept), rows, grads, *sizes, *others)

    return in_turn(step, pointers)


def fbgemm(given: Batches, lr: float = 0.01, eps: float = 1e-10) -> Step:
    """FBGEMM's exact row-wise AdaGrad: the backward pass of an embedding of one index for each item, fused with the step."""
    import fbgemm_gpu  # noqa: F401 - which registers what PyTorch calls
    import torch

    width = given[0][1].shape[1]
    numbers = functools.partial(torch.tensor, dtype=torch.int64)
    w, r = torch.from_numpy(table(width=width)).reshape(-1), torch.zeros(TABLE)
    placements, first, rate = torch.zeros(1, dtype=torch.int32), numbers([0]), torch.tensor(lr)
    dims, hashes = torch.tensor([0, width], dtype=torch.int32), numbers([0, TABLE])
    offsets, bits = torch.arange(len(given[0][0]) + 1), TABLE.bit_length()
    before = (w, placements, first, dims, width, hashes, bits)
    after = (offsets, 0, None, False, r, placements, first, rate, eps)
    function = torch.ops.fbgemm.split_embedding_backward_codegen_rowwise_adagrad_cpu
    tensors = [(torch.from_numpy(grads), torch.from_numpy(rows)) for rows, grads in given]
    return in_turn(lambda grads, rows: function(grads, *before, rows, *after), tensors)


def cases() -> Iterator[Case]:
    """All that has a bar."""
    given = batches(TOUCHED)
    yield Case("the same rows moved", {OURS: ours(given), LIMIT: limit(given)}, LIMIT, 1 / 0.7)
    yield Case("the same rows fetched and moved", {OURS: ours(given), LIMIT: limit(given, 8)}, LIMIT, 1 / 0.7)
    if importlib.util.find_spec("torch"):
        yield Case("PyTorch", {OURS: ours(given), TORCH: sparse_adam(given)}, TORCH, 1 / 5)
    per_row = {OURS: ours(given, fastopt.AdaGrad, per_row=True)}
    if compiler():
        yield Case("row-wise AdaGrad", per_row | {C: in_c(given)}, C, 1.2)
    if importlib.util.find_spec("fbgemm_gpu"):
        yield Case("row-wise AdaGrad", per_row | {FBGEMM: fbgemm(given)}, FBGEMM, 1.2)
    yield Case("16 tables", {OURS: of_several(given, 16), "one table": ours(given)}, "one table", 1.2)
    zipf = batches(TOUCHED, zipf=1.0)
    yield Case("duplicates of a Zipf distribution", {OURS: ours(zipf), "as many rows": ours(given)}, "as many rows", 1.5)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see ``python -m bench.rows --help``."""
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__)
    parser.add_argument("--threads", type=int, default=fastopt.get_num_threads(), metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args(argv)
    set_num_threads(args.threads)
    print(f"Adam, {TABLE:,} x {WIDTH}, float32, {TOUCHED:,} rows a step, {args.threads} threads")
    for case in cases():
        seconds = interleaved(case.steps, args.rounds, 0.05)
        ratio = float(np.median(np.divide(seconds[OURS], seconds[case.reference])))
        times = ", ".join(f"{name} {1e6 * np.median(each):.0f} us" for name, each in seconds.items())
        print(f"{case.name:36} {ratio:6.2f} (at most {case.bar:.2f})  {times}", flush=True)
    steps = {count: ours(batches(count)) for count in (100, 1_000, 10_000, 100_000, 1_000_000)}
    for count, each in interleaved(steps, args.rounds, 0.05).items():
        print(f"{count:9,} rows {1e6 * np.median(each):10.0f} us  {1e9 * np.median(each) / count:6.0f} ns a row", flush=True)


if __name__ == "__main__":
    main()
