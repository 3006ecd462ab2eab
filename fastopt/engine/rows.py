"""Touched rows of tables: each is stepped once in a call, with the sum of all gradients that came for it.

Every part of a pass takes the rows whose hash falls into its share. It finds their duplicates by a table of buckets, and then
copies as many rows as fit into the first cache to a block, calls the span on it as if it were a small tensor, and copies them
back. So any span serves, rows of any width become long vectors, and no row is waited for alone. Duplicates are added up in the
order in which they came, whatever the number of parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import float32, float64, int32, int64, types, uint64
from numba.extending import intrinsic, register_jitable

from fastopt.engine.addresses import call, record, vector
from fastopt.engine.compile import compiled_function
from fastopt.engine.interpreted import IS_INTERPRETED
from fastopt.engine.loop import CACHE_LINE, NOISE
from fastopt.engine.steps import SIGNATURE, add_up, run_share, step
from fastopt.engine.tables import fields, header_type, pass_type, row_type

# Elements in a block: its arrays, and the rows of the next one, fit into the first cache.
BLOCK = 512

# What each part has for itself, in bytes: the addresses of the arrays of a block, a sum, where the rows of this block and of
# the next one are, and the arrays, with gaps so that they don't lie at the same places of their pages.
ADDRESSES, SUM, PLACES, GAP = 512, 512, 8 * BLOCK, 320
BEFORE_ARRAYS = ADDRESSES + SUM + 2 * PLACES

TOUCHED = fields("tables", "count", "scratch", "scratch_bytes", "is_grouped")
TABLE = fields(
    *("update", "arrays", "updated", "items"),  # the row of a pass, how many arrays it takes and writes to, bytes of elements
    "is_stochastic",  # whether it takes the words of `NOISE` after the arrays
    *("squares", "squared_arrays", "squared_items"),  # the same of the pass that sums up squares, if there is one
    *("rows", "count", "limit"),  # which rows, of so many
    *("gradients", "sources", "weights"),  # of each row, or where `sources` says, times a weight, if there are some
    *("width", "numbers", "is_double"),  # elements of a row that loops go over, and real numbers in its gradient
    *("bits", "heads", "entries", "norms"),  # buckets; entries of `COLUMNS`; squares of the norm of each row
)
# An entry is an index of a row, by its position; unique rows are counted apart.
COLUMNS = 5

touched_type, table_type = map(numba.from_dtype, (TOUCHED, TABLE))


@intrinsic
def _copy(typing_context: Any, to: Any, source: Any, size: Any) -> Any:
    """Copy so many bytes (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        there, here = (builder.inttoptr(each, byte) for each in arguments[:2])
        kinds = [byte, byte, ir.IntType(64)]
        function = builder.module.declare_intrinsic("llvm.memcpy", kinds)
        builder.call(function, [there, here, arguments[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(int64, int64, int64), generate


# To be written to, close by, data: arguments of LLVM's function.
FOR_WRITING = (1, 3, 1)


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    """Fetch the cache line there, without waiting for it (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [builder.inttoptr(arguments[0], byte), *(ir.Constant(number, i) for i in FOR_WRITING)])
        return context.get_dummy_value()

    return types.void(int64), generate


@register_jitable
def _bucket(row: Any, bits: Any) -> Any:
    """Where to look for a row: the first bits of its product with the golden ratio."""
    return int64((uint64(row) * uint64(0x9E3779B97F4A7C15)) >> uint64(64 - bits))


@register_jitable
def _look(header: Any, touched: Any) -> Any:
    """Whether the tables have all of these rows."""
    header.touched = touched
    of_call = record(touched, touched_type)
    of_call.is_grouped = 0
    tables = vector(of_call.tables, of_call.count, table_type)
    wrong = False
    for t in range(of_call.count):
        rows, limit = vector(tables[t].rows, tables[t].count, int64), tables[t].limit
        for k in range(uint64(rows.size)):
            wrong |= (rows[k] < 0) | (rows[k] >= limit)
    return not wrong


@register_jitable
def _columns(table: Any, parts: Any) -> Any:
    """Of entries: their index; those that came first; the next one in a bucket; the next and the last one of the same row."""
    size = table.count + parts
    at, step = table.entries, 4 * size
    return (
        vector(at, size, int32),
        vector(at + step, size, int32),
        vector(at + 2 * step, size, int32),
        vector(at + 3 * step, size, int32),
        vector(at + 4 * step, size, int32),
    )


@register_jitable
def _first_entry(table: Any, part: Any, parts: Any) -> Any:
    """Where the entries of a part begin: after all those of parts before, and one more for each of these."""
    rows, low, below = vector(table.rows, table.count, int64), (1 << table.bits) * part // parts, part
    for k in range(uint64(rows.size if part else 0)):
        below += _bucket(rows[k], table.bits) < low
    return below


@register_jitable
def _group(table: Any, first: Any, part: Any, parts: Any) -> None:
    """Find the duplicates among the rows of a part: unique ones are listed in the order in which they came first."""
    buckets = 1 << table.bits
    low, high = buckets * part // parts, buckets * (part + 1) // parts
    rows, heads = vector(table.rows, table.count, int64), vector(table.heads, buckets, int32)
    position, uniques, chain, following, last = _columns(table, parts)
    end = count = first
    for k in range(uint64(rows.size)):
        bucket = _bucket(rows[k], table.bits)
        position[end] = k  # which the next one overwrites unless it counts: so there is no branch to guess
        end += (bucket >= low) & (bucket < high)
    heads[low:high] = -1
    norms = vector(table.norms, table.count if table.norms else 0, float64)
    for e in range(first, end):
        row = rows[position[e]]
        bucket = _bucket(row, table.bits)
        at = heads[bucket]
        while at >= 0 and rows[position[at]] != row:
            at = chain[at]
        following[e] = -1
        if table.norms:
            norms[position[e]] = 0.0
        if at < 0:
            chain[e] = heads[bucket]
            heads[bucket] = last[e] = uniques[count] = e
            count += 1
        else:
            following[last[at]] = e
            last[at] = e
    uniques[count] = -1


@register_jitable
def _take(to: Any, source: Any, numbers: Any, weight: Any, is_first: Any, kind: Any) -> None:
    """Add some numbers, times a weight, to what is there, or take their place."""
    total, own = vector(to, numbers, kind), vector(source, numbers, kind)
    if is_first:
        for i in range(uint64(numbers)):
            total[i] = weight * own[i]
    else:
        for i in range(uint64(numbers)):
            total[i] += weight * own[i]


@register_jitable
def _add_gradients(to: Any, table: Any, e: Any, begin: Any, numbers: Any, parts: Any) -> None:
    """Write the sum of the gradients of an entry and its duplicates, of so many numbers from some on."""
    position, _, _, following, _ = _columns(table, parts)
    size = 8 if table.is_double else 4
    is_first = True
    while e >= 0:
        k = int64(position[e])
        source = vector(table.sources, table.count, int64)[k] if table.sources else k
        at = table.gradients + (source * table.numbers + begin) * size
        if is_first and not table.weights:
            _copy(to, at, numbers * size)
        elif table.is_double:
            _take(to, at, numbers, vector(table.weights, table.count, float64)[k] if table.weights else 1.0, is_first, float64)
        else:
            one = float32(1.0)
            _take(to, at, numbers, vector(table.weights, table.count, float32)[k] if table.weights else one, is_first, float32)
        is_first, e = False, following[e]


@register_jitable
def _find_block(table: Any, u: Any, most: Any, parts: Any, begins: Any) -> Any:
    """Write where the unique rows of the block from this one on begin, in elements; how many they are."""
    rows = vector(table.rows, table.count, int64)
    position, uniques, _, _, _ = _columns(table, parts)
    count = 0
    while count < most and uniques[u + count] >= 0:
        begins[count] = rows[position[uniques[u + count]]] * table.width
        count += 1
    return count


@register_jitable
def _for_rows(table: Any, of_pass: Any, scratch: Any, first: Any, parts: Any) -> None:
    """Call a span on the unique rows of a part: one that updates arrays, or one that sums up squares."""
    at, arrays, updated, items_at, noise = of_pass
    row, items = record(at, row_type), vector(items_at, arrays + 1, int64)
    norms = vector(table.norms, table.count, float64)
    position, uniques, _, _, _ = _columns(table, parts)
    places, blocks = vector(row.operands, arrays + noise, int64), vector(scratch, arrays + noise, int64)
    sum_at, here_at = scratch + ADDRESSES, scratch + ADDRESSES + SUM
    here, ahead = vector(here_at, BLOCK, int64), vector(here_at + PLACES, BLOCK, int64)
    free = scratch + BEFORE_ARRAYS
    for a in range(arrays):
        blocks[a] = free
        free += BLOCK * items[a] + GAP
    for a in range(arrays, arrays + noise):
        blocks[a] = places[a]
    gradients = free
    longest = max(1, min(table.width, BLOCK))  # piece of a row
    most = BLOCK // longest
    numbers_of_element = table.numbers // max(1, table.width)
    u = first
    count = _find_block(table, u, most, parts, here)
    while count:
        next_count = _find_block(table, u + count, most, parts, ahead)
        for begin in range(0, table.width, longest):
            piece = min(longest, table.width - begin)
            for j in range(count):
                to, numbers = gradients + j * piece * items[arrays], piece * numbers_of_element
                _add_gradients(to, table, uniques[u + j], begin * numbers_of_element, numbers, parts)
            for a in range(arrays):
                size = piece * items[a]
                for j in range(count):
                    _copy(blocks[a] + j * size, places[a] + (here[j] + begin) * items[a], size)
                    if j < next_count and begin == 0:
                        for line in range(0, size, CACHE_LINE):
                            _prefetch(places[a] + ahead[j] * items[a] + line)
            for j in range(count if noise else 0):  # which is that of the elements where they are in the table
                blocks[arrays + noise - 1] = places[arrays + noise - 1] + here[j] + begin - j * piece
                call(row.function, scratch, gradients, row.coefficients, j * piece, (j + 1) * piece, 0)
            if updated and not noise:
                call(row.function, scratch, gradients, row.coefficients, 0, count * piece, 0)
            for a in range(updated):
                size = piece * items[a]
                for j in range(count):
                    _copy(places[a] + (here[j] + begin) * items[a], blocks[a] + j * size, size)
            for j in range(0 if updated else count):
                call(row.function, scratch, gradients, row.coefficients, j * piece, (j + 1) * piece, sum_at)
                norms[position[uniques[u + j]]] += vector(sum_at, 1, float64)[0]
        u += count
        count = next_count
        here, ahead = ahead, here


@register_jitable
def _run_share(address: Any, which: Any, number: Any, parts: Any) -> None:
    """Run one of so many equal shares of a pass: over whole tensors, and over touched rows."""
    run_share(address, which, number, parts)
    part = int64(number)  # of an unsigned and a signed integer Numba makes a float
    header = record(address, header_type)
    if not header.touched:
        return
    of_call = record(header.touched, touched_type)
    tables = vector(of_call.tables, of_call.count, table_type)
    scratch = of_call.scratch + part * of_call.scratch_bytes
    for t in range(of_call.count):
        table = tables[t]
        first = _first_entry(table, part, parts)
        if which == header.squares or not of_call.is_grouped:
            _group(table, first, part, parts)
        if which == header.squares:
            of_table = table.squares, table.squared_arrays, 0, table.squared_items, 0
        else:
            of_table = table.update, table.arrays, table.updated, table.items, NOISE * table.is_stochastic
        _for_rows(table, of_table, scratch, first, parts)


@register_jitable
def _add_up(header: Any, which: Any) -> None:
    """Add up what was summed up, of each table in the order in which its rows came first."""
    add_up(header, which)
    if not header.touched:
        return
    of_pass, of_call = record(which, pass_type), record(header.touched, touched_type)
    of_call.is_grouped = 1
    tables = vector(of_call.tables, of_call.count, table_type)
    for t in range(of_call.count):
        total = 0.0
        norms = vector(tables[t].norms, tables[t].count, float64)
        for k in range(norms.size):
            total += norms[k]
        tensor = record(tables[t].squares, row_type).tensor
        vector(of_pass.totals, tensor + 1, float64)[tensor] = total


@functools.cache
def row_step_function(parallel: bool) -> Callable[..., int]:
    """The same as `steps.step_function`, with the address of `TOUCHED` in the place of gradients."""
    if IS_INTERPRETED:
        raise RuntimeError("steps of rows need Numba's compiler, which NUMBA_DISABLE_JIT switches off")
    name = "row_step_parallel" if parallel else "row_step_serial"
    dispatcher = compiled_function(step(parallel, _look, _run_share, _add_up), SIGNATURE, name, parallel)
    return dispatcher.overloads[SIGNATURE.args].entry_point  # type: ignore[no-any-return]
