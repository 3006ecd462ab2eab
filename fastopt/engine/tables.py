"""The tables of a plan: records of numbers and addresses that compiled code goes through.

A *leaf* is an array of gradients as users hand it over; it has the gradients of one or more *tensors*, whose elements lie side
by side. A *pass* goes over *rows*: for a tensor, the span to call, its operands and its coefficients. *Groups* have a scale of
their gradients, and may limit their norm. *Decisions* are calls that write numbers which change from step to step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def fields(*names: str) -> np.dtype[Any]:
    """Of a record."""
    return np.dtype([(name, np.int64) for name in names])


HEADER = fields(
    *(
        "array_type",
        "list_type",
        "tuple_type",
        "tuple_items",
    ),  # of types; where the items of a tuple lie
    *("leaves", "leaf_count", "tensors", "pieces", "piece_count"),  # pieces: of memory that steps write to, sorted
    *("squares", "measures", "updates"),  # passes
    *("groups", "group_count", "limits"),  # limits: of the norm of each group, and of all together
    "is_lone",  # whether no list or tuple is expected
    *("norms", "factors", "norm", "nonfinite", "is_looking_twice"),
    *("decisions", "early_count", "decision_count", "shared_sums"),  # early: before sums; shared: over all tensors
    *("step_count", "accumulated", "traffic", "token"),
    "busy",  # where all plans of an optimizer have the address of the one that is under way, or zero
    "progress",  # bytes that each thread has moved in a long step, every `APART` numbers
    *("touched", "touching"),  # rows, and the function that steps them, see `rows`
)
APART = 8
LEAF = fields("descr", "itemsize", "ndim", "shape", "flags", "size", "known", "first", "count", "is_active")
TENSOR = fields("gradient", "offset")  # of its first element in the leaf
PASS = fields("rows", "count", "work", "sums", "totals", "products")
ROW = fields(
    "function", "operands", "coefficients", "tensor", "size", "begin", "cost", "block", "zeroed", "is_double", "doubles"
)
GROUP = fields(
    *("first", "count", "step_count", "square_cell", "cells", "cell_count"),
    *("scalars", "next_scalars", "scalar_count"),
)
# A decision is a call; its sums are none, those of a tensor, or those over all.
DECISION = fields("function", "step_count", "numbers", "sums", "scalars", "next_scalars", "results")

# The same for compiled code.
header_type, leaf_type, tensor_type, pass_type, row_type, group_type, decision_type = map(
    numba.from_dtype, (HEADER, LEAF, TENSOR, PASS, ROW, GROUP, DECISION)
)

# Where the fields of CPython's and NumPy's objects lie, in bytes.
TYPE, SIZE, ITEMS = 8, 16, 24
DATA, NDIM, SHAPE, DESCR, FLAGS = 16, 24, 32, 56, 64


def table(rows: Sequence[tuple[int, ...]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Records of one kind."""
    return np.array(rows, dtype)


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _knows_objects() -> bool:
    """Whether arrays, lists and tuples of this interpreter lie in memory as is known here."""
    array = np.zeros((3, 5), np.float32, order="F")
    begin = id(array)
    if np.ndarray.__basicsize__ < FLAGS + 4 or list.__basicsize__ < ITEMS + 8:
        return False
    found = [_word(begin + TYPE), _word(begin + DATA), _word(begin + NDIM) & 0xFFFFFFFF, _word(begin + DESCR)]
    found += [_word(begin + FLAGS) & 0xFFFFFFFF]
    if found != [id(np.ndarray), array.ctypes.data, 2, id(array.dtype), array.flags.num]:
        return False
    if [_word(_word(begin + SHAPE) + 8 * i) for i in range(2)] != [3, 5]:
        return False
    items, pair = [array, found], (array, found)
    begin, begin_of_pair = id(items), id(pair)
    heads = [(_word(start + TYPE), _word(start + SIZE)) for start in (begin, begin_of_pair)]
    if heads != [(id(list), 2), (id(tuple), 2)]:
        return False
    inside = [_word(_word(begin + ITEMS) + 8 * i) for i in range(2)]
    return inside == [_word(begin_of_pair + tuple.__basicsize__ + 8 * i) for i in range(2)] == [id(array), id(found)]


KNOWS_OBJECTS = _knows_objects()


def address(array: NDArray[Any]) -> int:
    """Where the first element lies in memory."""
    if KNOWS_OBJECTS:
        return _word(id(array) + DATA)
    return int(array.__array_interface__["data"][0])
