"""The loops: each element of every array is loaded once, updated in registers and stored once, or summed up.

All kernels of a rule run the same span, so their results agree to the last bit whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import int64, prange, types, uint64
from numba.extending import register_jitable

from fastopt.engine.storage import load, of_tensor, store
from fastopt.engine.sums import LANES, add_products

# What Numba's own parallel code calls. In Python, with checks, reading and setting the number takes longer than a small launch,
# and Numba doesn't cache a kernel that calls `numba.set_num_threads`.
_get_num_threads = types.ExternalFunction("get_num_threads", types.intp())  # as Numba declares it
_set_num_threads = types.ExternalFunction("set_num_threads", types.void(types.int32))

GRAIN = 1024  # spans begin at multiples of this many elements, so that no two threads write to one cache line but at most once
CACHE_LINE = 64  # bytes


@register_jitable
def _span(rule: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
    # In two parts, so that the second begins on a cache line: vectors that lie across two take longer.
    # In a caller's own loop theta may be a view with any stride; then it makes no difference where the second part begins.
    stride = arrays[0].strides[0]
    head = min(hi, lo + -(int64(arrays[0].ctypes.data) + lo * stride) % CACHE_LINE // max(1, stride))
    for begin, end in ((lo, head), (head, hi)):
        # Unsigned bounds: with signed ones Numba adds a test for negative indices, and the loop stays scalar.
        for i in range(uint64(begin), uint64(end)):
            old = load(arrays, i, dtype)
            new = rule(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype)))
            store(arrays, i, new, dtype)


@register_jitable
def _tensors_span(rule: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
    # Tensor s has the elements from bounds[s] to bounds[s + 1], and coefficients of its own.
    bounds = coefficients[-1]
    for s in range(bounds.size - 1):
        begin, end = max(lo, bounds[s]), min(hi, bounds[s + 1])
        if begin < end:
            _span(rule, dtype, arrays, g, lr, of_tensor(coefficients[:-1], s), begin, end)


@register_jitable
def _measured_span(measure: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, lo: Any, hi: Any) -> None:
    # Block b has the elements from blocks[b] to blocks[b + 1], and a row of sums of its own.
    values, blocks, sums = coefficients[:-2], coefficients[-2], coefficients[-1]
    for b in range(lo, hi):
        begin, end = blocks[b], blocks[b + 1]
        full = begin + (end - begin) // LANES * LANES
        for first in range(begin, full, LANES):
            # One sum after the other would wait for the one before; as many lanes as there are here fill vector registers.
            for lane in range(uint64(LANES)):
                _measure(measure, dtype, arrays, g, lr, values, uint64(first) + lane, sums[b], lane)
        for lane in range(uint64(end - full)):
            _measure(measure, dtype, arrays, g, lr, values, uint64(full) + lane, sums[b], lane)


@register_jitable
def _measure(measure: Any, dtype: Any, arrays: Any, g: Any, lr: Any, coefficients: Any, i: Any, sums: Any, lane: Any) -> None:
    old = load(arrays, i, dtype)
    add_products(sums, lane, measure(old[0], load(g, i, dtype), load(lr, i, dtype), *(old[1:] + load(coefficients, i, dtype))))


SPANS = {"step": _span, "tensors": _tensors_span, "measure": _measured_span}


def serial_loop(rule: Callable[..., Any], dtype: type, kind: str = "step") -> Callable[..., None]:
    """Kernel over the elements ``[lo, hi)``, for one thread.

    Parameters
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)`` gives the new theta and states of one element.
    dtype : type
        The NumPy scalar type to compute in.
    kind : {"step", "tensors", "measure"}, default "step"
        "tensors": coefficients of two dimensions have a row for each tensor, and ``bounds`` comes after all coefficients.
        "measure": the rule gives pairs of factors, whose products are added up; ``[lo, hi)`` counts blocks, and ``blocks``
        and ``sums`` come after the coefficients. See `engine.sums`.

    Returns
    -------
    callable
        ``kernel(lo, hi, arrays, g, lr, coefficients)``, not compiled yet. `arrays` is ``(theta, *states)``.
    """
    span = SPANS[kind]

    def kernel(lo: Any, hi: Any, arrays: Any, g: Any, lr: Any, coefficients: Any) -> None:
        span(rule, dtype, arrays, g, lr, coefficients, lo, hi)

    return kernel


def parallel_loop(rule: Callable[..., Any], dtype: type, kind: str = "step") -> Callable[..., None]:
    """Kernel over ``size`` elements or blocks in ``threads`` spans: ``kernel(size, threads, arrays, g, lr, coefficients)``.

    See `serial_loop` for the parameters.
    """
    span = SPANS[kind]
    grain = 1 if kind == "measure" else GRAIN

    def kernel(size: Any, threads: Any, arrays: Any, g: Any, lr: Any, coefficients: Any) -> None:
        grains = (size + grain - 1) // grain
        length = (grains + threads - 1) // threads * grain
        callers = _get_num_threads()
        _set_num_threads(threads)
        for part in prange(threads):
            span(rule, dtype, arrays, g, lr, coefficients, min(part * length, size), min((part + 1) * length, size))
        _set_num_threads(callers)

    return kernel
