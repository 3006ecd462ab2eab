"""One step as one compiled call: gradients are looked at, summed up, clipped, and everything is updated and counted.

What it goes through are the tables of a plan (`engine.tables`). As the counters and the running scalars move in the same call
as the arrays, no exception that comes from outside, a signal's, finds them apart.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, int64, prange

from fastopt.engine.addresses import call, record, vector
from fastopt.engine.compile import compiled_function
from fastopt.engine.external import get_num_threads, restore_thread, save_thread, set_num_threads
from fastopt.engine.gradients import look
from fastopt.engine.interpreted import IS_INTERPRETED, interpreted
from fastopt.engine.jitable import jitable
from fastopt.engine.loop import ITEM
from fastopt.engine.sums import BLOCK, LANES
from fastopt.engine.tables import (
    APART,
    HEADER,
    PASS,
    decision_type,
    group_type,
    header_type,
    pass_type,
    row_type,
    tensor_type,
)

# What a call does.
BEGIN, SQUARES, MEASURES, DECIDE, UPDATE = 1, 2, 4, 8, 16

# How it ends. All but the first leave everything as it was.
DONE, UNKNOWN_GRADIENT, NOT_FINITE, OUT_OF_RANGE, INTERRUPTED, BUSY = range(6)

SIGNATURE = int64(int64, int64, int64, float64, int64, int64, int64)

# Spans begin at multiples of this many elements, so that no two threads write to one cache line but at most once.
GRAIN = 1024

# What is asked of tables of which only some rows are touched: to run a share of a pass, to add up, to count.
RUN, ADD_UP, COUNT = range(3)

# A sum of squares of float64 beyond these may have lost some of its terms.
LEAST, LARGEST = 1e-290, 1.7976931348623157e308

# With less traffic than this, other threads of Python need not run meanwhile.
SHORT_BYTES = 256 * 1024

# After so many elements a thread tells how far it is.
STRIDE = 4096 * GRAIN


@jitable
def _first_row(rows: Any, count: Any, begin: Any) -> Any:
    """The last row whose work begins here or before."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if rows[middle].begin <= begin:
            low = middle
        else:
            high = middle
    return low


@jitable
def _tell(header: Any, part: Any, moved: Any) -> None:
    """Tell who asks how many bytes more a thread has moved in a long step."""
    if header.traffic > SHORT_BYTES:
        place = APART * int64(part)
        vector(header.progress, place + 1, int64)[place] += int64(moved)


@jitable
def _run_share(address: Any, which: Any, part: Any, parts: Any) -> None:
    """Run one of so many equal shares of a pass."""
    header = record(address, header_type)
    tensors_at, of_pass = header.tensors, record(which, pass_type)
    rows = vector(of_pass.rows, of_pass.count, row_type)
    begin, end = of_pass.work * part // parts, of_pass.work * (part + 1) // parts
    grain = BLOCK if of_pass.products else GRAIN
    for r in range(_first_row(rows, of_pass.count, begin), of_pass.count):
        row = rows[r]
        if row.begin >= end:
            break
        lo = max(0, (begin - row.begin) // row.cost * grain)
        hi = min(row.size, (end - row.begin) // row.cost * grain)
        if lo < hi:
            gradient = vector(tensors_at, row.tensor + 1, tensor_type)[row.tensor].gradient
            if row.zeroed:  # the gradient is among what the rule updates
                vector(row.zeroed, 1, int64)[0] = gradient
            if of_pass.products == 0:
                for at in range(lo, hi, STRIDE):
                    call(row.function, row.operands, gradient, row.coefficients, at, min(hi, at + STRIDE), 0)
                    _tell(header, part, (min(hi, at + STRIDE) - at) * row.cost)
            else:
                for at in range(lo, hi, BLOCK):
                    sums = of_pass.sums + (row.block + at // BLOCK) * of_pass.products * LANES * ITEM
                    call(row.function, row.operands, gradient, row.coefficients, at, min(hi, at + BLOCK), sums)
                _tell(header, part, (hi - lo) * row.cost)
    if header.touched:
        call(header.touching, address, which, int64(part), parts, RUN, 0)


@jitable
def _add_up(address: Any, which: Any) -> None:
    """Add up the blocks of each row, from the first to the last: ``totals[tensor, product]``."""
    header, of_pass = record(address, header_type), record(which, pass_type)
    rows = vector(of_pass.rows, of_pass.count, row_type)
    for r in range(of_pass.count):
        row = rows[r]
        blocks = (row.size + BLOCK - 1) // BLOCK
        totals = vector(of_pass.totals + row.tensor * of_pass.products * ITEM, of_pass.products, float64)
        sums = vector(of_pass.sums, (row.block + blocks) * of_pass.products * LANES, float64)
        for product in range(of_pass.products):
            total = 0.0
            for block in range(row.block, row.block + blocks):
                total += sums[(block * of_pass.products + product) * LANES]
            totals[product] = total
    if header.touched:
        call(header.touching, address, which, 0, 1, ADD_UP, 0)


@jitable
def limited_norm(norms: Any, limits: Any, factors: Any) -> Any:
    """The norm of all groups together; and the factor of each group, by which norms are limited.

    Parameters
    ----------
    norms : ndarray, shape (groups,)
        Of the gradients of each group.
    limits : ndarray, shape (groups + 1,)
        Of each group, and then of all together; infinity for none.
    factors : ndarray, shape (groups,)
        Written to.
    """
    total, limited = 0.0, 0.0
    for i in range(norms.size):
        is_short = limits[i] == math.inf or norms[i] <= limits[i]  # which a NaN is not
        factors[i] = 1.0 if is_short else limits[i] / norms[i]
        total = np.hypot(total, norms[i])
        limited = np.hypot(limited, limits[i] if norms[i] > limits[i] else norms[i])
    limit = limits[norms.size]
    if not (limit == math.inf or limited <= limit):
        for i in range(norms.size):
            factors[i] *= limit / limited
    return total


@jitable
def _is_zero(header: Any, row: Any) -> Any:
    """Whether a gradient of float64 is zero; one of float32 is, if its squares are."""
    if row.doubles:  # of the gradient, for each element
        gradient = vector(header.tensors, row.tensor + 1, tensor_type)[row.tensor].gradient
        numbers = vector(gradient, row.size * row.doubles, float64)
        for i in range(row.size * row.doubles):
            if numbers[i] != 0.0:
                return False
    return True


@jitable
def _limit(header: Any) -> Any:
    """Limit norms, or find that something is not finite, from the sums of squares."""
    squares = record(header.squares, pass_type)
    rows = vector(squares.rows, squares.count, row_type)
    groups = vector(header.groups, header.group_count, group_type)
    norms = vector(header.norms, header.group_count, float64)
    is_in_range = True
    for i in range(header.group_count):
        square = 0.0
        for r in range(groups[i].first, groups[i].first + groups[i].count):
            total = vector(squares.totals, rows[r].tensor + 1, float64)[rows[r].tensor]
            if rows[r].is_double and not (total >= LEAST and total <= LARGEST):
                is_in_range &= total == 0.0 and _is_zero(header, rows[r])
            square += total
        is_in_range &= square <= LARGEST or square != square or not rows[groups[i].first].is_double
        norms[i] = math.sqrt(square)
    if not is_in_range:
        return OUT_OF_RANGE
    total = limited_norm(
        norms, vector(header.limits, header.group_count + 1, float64), vector(header.factors, header.group_count, float64)
    )
    vector(header.norm, 1, float64)[0] = total
    return NOT_FINITE if header.nonfinite and not total < math.inf else DONE


@jitable
def _decide(header: Any, first: Any, end: Any) -> None:
    """Compute numbers of this step, and the running scalars that will take the place of the old ones."""
    decisions = vector(header.decisions, end, decision_type)
    for i in range(first, end):
        d = decisions[i]
        t = vector(d.step_count, 1, int64)[0] + 1
        call(d.function, d.numbers, d.sums, d.scalars, d.next_scalars, d.results, t)


@jitable
def _share_sums(header: Any) -> None:
    """Add up what was measured over all tensors, from the first to the last."""
    measures = record(header.measures, pass_type)
    rows = vector(measures.rows, measures.count, row_type)
    shared = vector(header.shared_sums, measures.products, float64)
    shared[:] = 0.0
    for r in range(measures.count):
        totals = vector(measures.totals + rows[r].tensor * measures.products * ITEM, measures.products, float64)
        for k in range(measures.products):
            shared[k] += totals[k]


@jitable
def _write_scales(header: Any, scale: Any) -> None:
    """Let the spans of each group take this scale, and the factor that limits the group's norm."""
    groups = vector(header.groups, header.group_count, group_type)
    factors = vector(header.factors, header.group_count, float64)
    for i in range(header.group_count):
        cells = vector(groups[i].cells, groups[i].cell_count, int64)
        for k in range(groups[i].cell_count):
            vector(cells[k], 1, float64)[0] = scale * factors[i]
        if groups[i].square_cell:
            vector(groups[i].square_cell, 1, float64)[0] = scale


@jitable
def _count(address: Any) -> None:
    """Count the step, and let the new running scalars take the place of the old ones."""
    header = record(address, header_type)
    if header.touched:
        call(header.touching, address, header.updates, 0, 1, COUNT, 0)
    vector(header.step_count, 1, int64)[0] += 1
    if header.accumulated:
        vector(header.accumulated, 1, int64)[0] = 0
    groups = vector(header.groups, header.group_count, group_type)
    for i in range(header.group_count):
        group = groups[i]
        vector(group.step_count, 1, int64)[0] += 1
        scalars = vector(group.scalars, group.scalar_count, float64)
        following = vector(group.next_scalars, group.scalar_count, float64)
        for k in range(group.scalar_count):
            scalars[k] = following[k]


def step(parallel: bool) -> Callable[..., int]:
    """The function, not compiled yet."""

    def step(threads: Any, address: Any, gradients: Any, scale: Any, count: Any, token: Any, phases: Any) -> Any:
        header = record(address, header_type)
        busy = vector(header.busy, 1, int64)
        if busy[0]:
            return BUSY
        if vector(header.step_count, 1, int64)[0] != count:
            return INTERRUPTED
        if gradients:
            header.token = token
            if not look(header, gradients):
                return UNKNOWN_GRADIENT
        elif header.token != token:
            return INTERRUPTED
        busy[0] = address
        state = 0
        if header.traffic > SHORT_BYTES:
            vector(header.progress, APART * threads, int64)[:] = 0
            state = save_thread()
        status = DONE
        if phases & BEGIN:
            _decide(header, 0, header.early_count)
        for phase in (SQUARES, MEASURES, UPDATE):
            if phase == UPDATE and phases & DECIDE and status == DONE:
                _decide(header, header.early_count, header.decision_count)
            if phases & phase and status == DONE:
                if phase != UPDATE or not phases & MEASURES:
                    _write_scales(header, scale)
                which = header.squares if phase == SQUARES else header.measures if phase == MEASURES else header.updates
                if parallel:
                    callers = get_num_threads()
                    set_num_threads(threads)
                    for part in prange(threads):
                        _run_share(address, which, part, threads)
                    set_num_threads(callers)
                else:
                    _run_share(address, which, 0, 1)
                if phase == UPDATE:
                    _count(address)
                else:
                    _add_up(address, which)
                    if phase == SQUARES:
                        status = _limit(header)
                    else:
                        _share_sums(header)
        if state:
            restore_thread(state)
        busy[0] = 0
        return status

    return step


@functools.cache
def step_function(parallel: bool) -> Callable[..., int]:
    """``step(threads, plan, gradients, scale, count, token, phases)``, compiled or loaded from the cache.

    Parameters
    ----------
    parallel : bool
        Whether it runs on several threads.

    Returns
    -------
    callable
        It takes the number of threads, which makes no difference to the results; the address of a plan's header; that of a
        Python object with the gradients, or 0 where their addresses are known; what gradients are multiplied with; how many
        steps were taken before; a number that tells the calls of one step from those of others; and what to do. It gives how
        it ended.
    """
    if IS_INTERPRETED:
        return interpreted(step(parallel), _forget)
    return step_dispatcher(parallel).overloads[SIGNATURE.args].entry_point  # type: ignore[no-any-return]


def _forget(threads: int, address: int, *others: Any) -> None:
    """Be ready for another step after one that raised."""
    vector(record(address, header_type).busy, 1, int64)[0] = 0


@functools.cache
def step_dispatcher(parallel: bool) -> Any:
    """The same as a Numba dispatcher."""
    return compiled_function(step(parallel), SIGNATURE, "step_parallel" if parallel else "step_serial", parallel)


def nothing() -> tuple[Any, ...]:
    """Arguments after the number of threads for a step that has nothing to do."""
    return _NOTHING.ctypes.data, 0, 1.0, 0, 0, MEASURES


_STEPS_OF_NOTHING, _BUSY_WITH_NOTHING = np.zeros((2, 1), np.int64)
_PASS_OF_NOTHING = np.zeros(1, PASS)
_NOTHING = np.zeros(1, HEADER)
_NOTHING["step_count"], _NOTHING["busy"] = _STEPS_OF_NOTHING.ctypes.data, _BUSY_WITH_NOTHING.ctypes.data
_NOTHING["measures"] = _PASS_OF_NOTHING.ctypes.data
