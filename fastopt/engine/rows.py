"""Touched rows of tables: each is stepped once in a call, with the sum of all gradients that came for it.

Every part of a pass takes the rows whose hash falls into its share. It finds their duplicates by a table of buckets, and then
copies as many rows as fit into the first cache to a block, calls the span on it as if it were a small tensor, and copies them
back. So any span serves, rows of any width become long vectors, and no row is waited for alone. Duplicates are added up in the
order in which they came, whatever the number of parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import float32, float64, int32, int64, uint64

from fastopt.engine.addresses import call, record, vector, word
from fastopt.engine.compile import compiled_span
from fastopt.engine.digest import digest
from fastopt.engine.jitable import jitable
from fastopt.engine.loop import ITEM
from fastopt.engine.pieces import copy_bytes, prefetch
from fastopt.engine.steps import ADD_UP, COUNT
from fastopt.engine.tables import fields, header_type, pass_type, row_type

# Elements in a block: its arrays fit into the first cache.
BLOCK = 512

# What each part has for itself, in bytes: the addresses of the arrays of a block, a sum, where the rows of this block and of
# the next one are, and the arrays, with gaps so that they don't lie at the same places of their pages.
ADDRESSES, SUM, PLACES, GAP = 512, 512, 8 * BLOCK, 320
BEFORE_ARRAYS = ADDRESSES + SUM + 2 * PLACES

TOUCHED = fields("tables", "count", "scratch", "scratch_bytes", "is_grouped")
# Of a table, what belongs to one step.
OF_STEP = (
    *("rows", "count"),  # which rows, so many
    *("gradients", "sources", "weights"),  # of each row, or where `sources` says, times a weight, if there are some
    *("bits", "heads", "entries", "norms"),  # buckets; entries of `COLUMNS`; squares of the norm of each row
    *("last", "taken"),  # steps that each row has taken, of so many, if rows catch up
    *("history", "counts", "number_bytes"),  # numbers and counters of these steps
    "is_recorded",  # whether other rows miss this one
)
TABLE = fields(
    *("update", "arrays", "updated", "bytes"),  # the row of a pass, how many arrays it takes and writes to, bytes of a row
    "words",  # how many more it takes after the arrays
    "noise",  # which of these is the place of the first element; -1 if there is none
    *("squares", "squared_arrays", "squared_bytes"),  # the same of the pass that sums up squares, if there is one
    *("limit", "width", "longest"),  # how many rows there are; elements of a row, and of a piece of it
    *("numbers", "is_double", "zeros"),  # real numbers in the gradient of a row; one of zeros
    *OF_STEP,
)
# An entry is an index of a row, by its position; unique rows are counted apart.
COLUMNS = 5

touched_type, table_type = map(numba.from_dtype, (TOUCHED, TABLE))


@jitable
def _bucket(row: Any, bits: Any) -> Any:
    """Where to look for a row: the first bits of its product with the golden ratio."""
    return int64((uint64(row) * uint64(0x9E3779B97F4A7C15)) >> uint64(64 - bits))


@jitable
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


@jitable
def _first_entry(table: Any, part: Any, parts: Any) -> Any:
    """Where the entries of a part begin: after all those of parts before, and one more for each of these."""
    rows, low, below = vector(table.rows, table.count, int64), (1 << table.bits) * part // parts, part
    for k in range(uint64(rows.size if part else 0)):
        below += _bucket(rows[k], table.bits) < low
    return below


@jitable
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


@jitable
def _take(to: Any, source: Any, numbers: Any, weight: Any, is_first: Any, kind: Any) -> None:
    """Add some numbers, times a weight, to what is there, or take their place."""
    total, own = vector(to, numbers, kind), vector(source, numbers, kind)
    if is_first:
        for i in range(uint64(numbers)):
            total[i] = weight * own[i]
    else:
        for i in range(uint64(numbers)):
            total[i] += weight * own[i]


@jitable
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
            copy_bytes(to, at, numbers * size)
        elif table.is_double:
            _take(to, at, numbers, vector(table.weights, table.count, float64)[k] if table.weights else 1.0, is_first, float64)
        else:
            one = float32(1.0)
            _take(to, at, numbers, vector(table.weights, table.count, float32)[k] if table.weights else one, is_first, float32)
        is_first, e = False, following[e]


@jitable
def _find_block(table: Any, u: Any, most: Any, parts: Any, found: Any, places: Any, bytes_of: Any) -> Any:
    """Write which are the unique rows of the block from this one on, and fetch their first pieces; how many they are."""
    rows, sources = vector(table.rows, table.count, int64), vector(table.sources, table.count if table.sources else 0, int64)
    position, uniques, _, _, _ = _columns(table, parts)
    arrays, width = bytes_of.size - 1, max(1, table.width)
    row_bytes = bytes_of[arrays]
    count = 0
    while count < most and uniques[u + count] >= 0:
        k = int64(position[uniques[u + count]])
        found[count] = rows[k]
        prefetch(table.gradients + (sources[k] if table.sources else k) * row_bytes, row_bytes * table.longest // width)
        count += 1
    for a in range(arrays):
        size = bytes_of[a] * table.longest // width
        for j in range(count):
            prefetch(places[a] + found[j] * bytes_of[a], size)
    return count


@jitable
def _for_rows(table: Any, of_pass: Any, scratch: Any, first: Any, parts: Any) -> None:
    """Call a span on the unique rows of a part: one that updates arrays, or one that sums up squares."""
    at, arrays, updated, bytes_at, words, noise = of_pass
    row, bytes_of = record(at, row_type), vector(bytes_at, arrays + 1, int64)
    norms = vector(table.norms, table.count, float64)
    position, uniques, _, _, _ = _columns(table, parts)
    places, blocks = vector(row.operands, arrays + words, int64), vector(scratch, arrays + words, int64)
    sum_at, here_at = scratch + ADDRESSES, scratch + ADDRESSES + SUM
    here, ahead = vector(here_at, BLOCK, int64), vector(here_at + PLACES, BLOCK, int64)
    width, longest = max(1, table.width), table.longest
    most = max(1, BLOCK // longest)
    free = scratch + BEFORE_ARRAYS
    for a in range(arrays):
        blocks[a] = free
        free += most * (bytes_of[a] * longest // width) + GAP
    for a in range(arrays, arrays + words):
        blocks[a] = places[a]
    gradients = free
    numbers_of_element = table.numbers // width
    u = first
    count = _find_block(table, u, most, parts, here, places, bytes_of)
    while count:
        next_count = _find_block(table, u + count, most, parts, ahead, places, bytes_of)
        for begin in range(0, table.width, longest):
            piece = min(longest, width - begin)
            for j in range(count):
                to, numbers = gradients + j * (bytes_of[arrays] * piece // width), piece * numbers_of_element
                _add_gradients(to, table, uniques[u + j], begin * numbers_of_element, numbers, parts)
            for a in range(arrays):
                size, there = bytes_of[a] * piece // width, places[a] + bytes_of[a] * begin // width
                for j in range(count):
                    copy_bytes(blocks[a] + j * size, there + here[j] * bytes_of[a], size)
            if updated and noise < 0:
                call(row.function, scratch, gradients, row.coefficients, 0, count * piece, 0)
            for j in range(count if updated and noise >= 0 else 0):  # which is that of the elements where they are in the table
                blocks[noise] = places[noise] + here[j] * width + begin - j * piece
                call(row.function, scratch, gradients, row.coefficients, j * piece, (j + 1) * piece, 0)
            for a in range(updated):
                size, there = bytes_of[a] * piece // width, places[a] + bytes_of[a] * begin // width
                for j in range(count):
                    copy_bytes(there + here[j] * bytes_of[a], blocks[a] + j * size, size)
            for j in range(0 if updated else count):
                call(row.function, scratch, gradients, row.coefficients, j * piece, (j + 1) * piece, sum_at)
                norms[position[uniques[u + j]]] += vector(sum_at, 1, float64)[0]
        u += count
        count = next_count
        here, ahead = ahead, here


@jitable
def _catch_up(table: Any, row: Any, scratch: Any, taken: Any) -> None:
    """Let a row take the steps that it has missed, with a gradient of zeros and the numbers that these steps had."""
    last = vector(table.last, table.limit, int32)
    if last[row] < taken:
        of_update, words = record(table.update, row_type), table.arrays + table.words
        operands, own = vector(of_update.operands, words, int64), vector(scratch, words, int64)
        for a in range(words):
            own[a] = operands[a]
        begin = row * table.width
        zeros = table.zeros - row * vector(table.bytes, table.arrays + 1, int64)[table.arrays]
        for s in range(last[row], taken):
            if table.noise >= 0:
                own[table.arrays] = table.counts + ITEM * s
            numbers = table.history + s * table.number_bytes
            call(of_update.function, scratch, zeros, numbers, begin, begin + table.width, 0)
    last[row] = taken


@jitable
def _catch_up_some(table: Any, scratch: Any, part: Any, parts: Any) -> None:
    """The same for the rows of a part, or, where there are no entries, for some of all rows of the table."""
    taken = word(table.taken)
    if table.heads:
        buckets = 1 << table.bits
        low, high = buckets * part // parts, buckets * (part + 1) // parts
        rows = vector(table.rows, table.count, int64)
        for k in range(uint64(rows.size)):
            bucket = _bucket(rows[k], table.bits)
            if bucket >= low and bucket < high:
                _catch_up(table, rows[k], scratch, taken)
    else:
        for row in range(table.limit * part // parts, table.limit * (part + 1) // parts):
            _catch_up(table, row, scratch, taken)


@jitable
def _run(header: Any, table: Any, which: Any, scratch: Any, part: Any, parts: Any, is_grouped: Any) -> None:
    """Run one of so many shares of a pass over a table; with measures, which a table has none of, its rows catch up."""
    if table.last and which != header.squares:
        _catch_up_some(table, scratch, part, parts)
    if which == header.measures:
        return
    first = _first_entry(table, part, parts)
    if not is_grouped:
        _group(table, first, part, parts)
    if which == header.squares:
        of_table = table.squares, table.squared_arrays, 0, table.squared_bytes, 0, -1
    else:
        of_table = table.update, table.arrays, table.updated, table.bytes, table.words, table.noise
    _for_rows(table, of_table, scratch, first, parts)
    if table.last and table.is_recorded and which == header.updates:
        last, rows = vector(table.last, table.limit, int32), vector(table.rows, table.count, int64)
        position, uniques, _, _, _ = _columns(table, parts)
        while uniques[first] >= 0:
            last[rows[position[uniques[first]]]] += 1
            first += 1


@jitable
def _add_up(table: Any, of_pass: Any) -> None:
    """Add up what was summed up, in the order in which the rows came first."""
    total = 0.0
    norms = vector(table.norms, table.count, float64)
    for k in range(norms.size):
        total += norms[k]
    tensor = record(table.squares, row_type).tensor
    vector(of_pass.totals, tensor + 1, float64)[tensor] = total


@jitable
def _forget(table: Any) -> None:
    """Have no steps that rows could have missed, after all have caught up."""
    if table.last and not table.heads:
        last = vector(table.last, table.limit, int32)
        last[:] = 0
        vector(table.taken, 1, int64)[0] = 0


@jitable
def _note(table: Any) -> None:
    """Take note of the numbers of a step, for the rows that have missed it."""
    if table.last and table.is_recorded:
        of_update, taken = record(table.update, row_type), vector(table.taken, 1, int64)
        copy_bytes(table.history + taken[0] * table.number_bytes, of_update.coefficients, table.number_bytes)
        if table.noise >= 0:
            vector(table.counts, taken[0] + 1, int64)[taken[0]] = word(word(of_update.operands + ITEM * table.arrays))
        taken[0] += 1


@jitable
def touch(address: Any, which: Any, part: Any, parts: Any, job: Any, unused: Any) -> None:
    """Do what a step asks of tables of which only some rows are touched: `RUN`, `ADD_UP`, `COUNT`."""
    header = record(address, header_type)
    of_call = record(header.touched, touched_type)
    tables = vector(of_call.tables, of_call.count, table_type)
    scratch = of_call.scratch + part * of_call.scratch_bytes
    for t in range(of_call.count):
        table = tables[t]
        if job == COUNT:
            _note(table)
        elif job == ADD_UP and which == header.squares:
            _add_up(table, record(which, pass_type))
        elif job == ADD_UP:
            _forget(table)
        else:
            _run(header, table, which, scratch, part, parts, of_call.is_grouped)
    if job == ADD_UP:
        of_call.is_grouped = 1


class Touching:
    """`touch`, as what is compiled like a span."""

    rule = staticmethod(touch)

    @property
    def name(self) -> str:
        """As those of spans."""
        return f"touch_{digest(touch)}"

    def span(self) -> Callable[..., None]:
        """A function of its own, not compiled yet."""

        def touching(address: Any, which: Any, part: Any, parts: Any, job: Any, unused: Any) -> None:
            touch(address, which, part, parts, job, unused)

        touching.__name__ = touching.__qualname__ = self.name
        return touching


def touching() -> Any:
    """What steps call for tables of which only some rows are touched; whoever holds its address must hold it, too."""
    return compiled_span(Touching())
