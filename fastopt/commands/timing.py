"""What the doctor measures: steps beside other work, steps with other arrays, and what this process gets of its CPUs."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastopt
from fastopt.arrays.layout import aligned_zeros
from fastopt.engine import runtime

SIDE = 256  # of the arrays of a step, and of matrices: all of it stays in the cache
ROUNDS = 30
BUSY_SECONDS = 0.2  # two periods of a quota


def quickest(*actions: Callable[[], object]) -> list[float]:
    """Seconds of the quickest of some calls of each, which take turns."""
    seconds = [[_seconds(action) for action in actions] for _ in range(ROUNDS)]
    return [min(each) for each in zip(*seconds, strict=True)]


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def with_products() -> tuple[float, float]:
    """Seconds of a step on all threads, usually: one after the other, and each right after a matrix product.

    Nothing else is tried here, as steps do on their own when they are slow.
    """
    matrix = np.ones((SIDE, SIDE), np.float32)
    optimizer = fastopt.SGD(aligned_zeros(SIDE**2, np.float32))
    before = runtime.get_parallel_threshold()
    fastopt.set_parallel_threshold(0)
    try:
        alone, beside = (_usual_step(optimizer, matrix, work) for work in (lambda: None, lambda: matrix @ matrix))
    finally:
        fastopt.set_parallel_threshold(before)
    return alone, beside


def _usual_step(optimizer: fastopt.Optimizer, matrix: np.ndarray, work: Callable[[], object]) -> float:
    gradient = matrix.ravel()
    seconds = []
    for _ in range(1 + ROUNDS):  # the first one may compile
        work()
        seconds.append(_seconds(lambda: optimizer.step(gradient)))
    return statistics.median(seconds[1:])


def with_gradients() -> dict[str, float]:
    """How many times as long a step takes whose gradients lie in another way than parameters, or are of another dtype."""
    square = (SIDE, SIDE)
    aligned = aligned_zeros(SIDE**2, np.float32)
    gradients = {
        "": aligned,
        "in another order": aligned.reshape(square).T,
        "float64 for float32": aligned_zeros(SIDE**2, np.float64),
        "off a cache line": aligned_zeros(SIDE**2 + 1, np.float32)[1:],
    }
    steps = [_step_of(gradient.reshape(square, order="A")) for gradient in gradients.values()]
    for step in steps:  # compile
        step()
    plain, *others = quickest(*steps)
    return {name: seconds / plain for name, seconds in zip(list(gradients)[1:], others, strict=True)}


def _step_of(gradient: np.ndarray) -> Callable[[], object]:
    optimizer = fastopt.SGD(aligned_zeros(gradient.size, np.float32).reshape(gradient.shape), threads=1)
    return lambda: optimizer.step(gradient)


def cpus_to_be_had(count: int) -> float:
    """How many CPUs this process gets where it has work for so many."""
    end = time.perf_counter() + BUSY_SECONDS
    block = bytes(2**20)

    def work(_: int) -> None:
        while time.perf_counter() < end:
            hashlib.sha256(block)  # without Python's lock

    begin, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
    return (time.process_time() - used) / (time.perf_counter() - begin)
