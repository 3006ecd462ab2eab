"""A look at the gradients of a step, in the objects of Python and NumPy themselves, by compiled code."""

from __future__ import annotations

from typing import Any

from numba import int64

from fastopt.engine.addresses import half_word, vector, word
from fastopt.engine.jitable import jitable
from fastopt.engine.loop import ITEM
from fastopt.engine.tables import (
    DATA,
    DESCR,
    FLAGS,
    ITEMS,
    NDIM,
    SHAPE,
    SIZE,
    TYPE,
    leaf_type,
    tensor_type,
)


@jitable
def _accepted(array: Any, leaf: Any, header: Any) -> Any:
    """Where the elements of a gradient lie, if it is one that spans can read; else 0."""
    if word(array + TYPE) != header.array_type or half_word(array + NDIM) != leaf.ndim or word(array + DESCR) != leaf.descr:
        return 0
    if half_word(array + FLAGS) & leaf.flags != leaf.flags:
        return 0
    for i in range(leaf.ndim):
        if word(word(array + SHAPE) + ITEM * i) != word(leaf.shape + ITEM * i):
            return 0
    begin = word(array + DATA)
    if begin == leaf.known:
        return begin
    end = begin + leaf.size * leaf.itemsize
    if header.is_looking_twice or (leaf.size and _is_written(header, begin, end)):
        return 0
    leaf.known = begin
    return begin


@jitable
def _is_written(header: Any, begin: Any, end: Any) -> Any:
    """Whether steps write to some of this memory."""
    pieces = vector(header.pieces, 2 * header.piece_count, int64)
    low, high = 0, header.piece_count  # the last piece that begins before the end
    while low < high:
        middle = (low + high) // 2
        if pieces[2 * middle] < end:
            low = middle + 1
        else:
            high = middle
    return low > 0 and begin < pieces[2 * low - 1]


@jitable
def look(header: Any, gradients: Any) -> Any:
    """Take note of where the gradients lie: those of a list or tuple, or a lone one; whether all are known."""
    leaves = vector(header.leaves, header.leaf_count, leaf_type)
    kind = word(gradients + TYPE)
    if header.is_lone:
        return _take(header, leaves[0], gradients)
    if kind != header.list_type and kind != header.tuple_type:
        return False
    if word(gradients + SIZE) != header.leaf_count:
        return False
    items = word(gradients + ITEMS) if kind == header.list_type else gradients + header.tuple_items
    for i in range(header.leaf_count):  # noqa: SIM110 - Numba has no generators in all()
        if not _take(header, leaves[i], word(items + ITEM * i)):
            return False
    return True


@jitable
def _take(header: Any, leaf: Any, array: Any) -> Any:
    if leaf.is_active:
        begin = _accepted(array, leaf, header)
        if begin == 0:
            return False
        tensors = vector(header.tensors, leaf.first + leaf.count, tensor_type)
        for t in range(leaf.first, leaf.first + leaf.count):
            tensors[t].gradient = begin + tensors[t].offset * leaf.itemsize
    return True
