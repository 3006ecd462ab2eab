"""Gradients of some rows of a table: the forms in which they come, and their checks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import Flat
from fastopt.arrays.layout import COMPLEX, FLOATS, parts, require_array
from fastopt.arrays.parameters import Parameter

INDICES = (np.dtype(np.int32), np.dtype(np.int64))

# Compiled code counts indices in 32 bits.
MOST = 2**31 - 2**16


class Touched(NamedTuple):
    """Which rows of a parameter a step touches, and with what gradients."""

    rows: NDArray[Any]  # int64, shape (indices,)
    gradients: NDArray[Any]  # one after the other, real and imaginary parts of complex ones in turn
    numbers: int  # that the gradient of a row has
    sources: NDArray[Any] | None = None  # which of the given gradients each index takes; by default its own
    weights: NDArray[Any] | None = None  # what it is multiplied with


def touched_rows(p: Parameter, name: str, rows: Any, grads_name: str, grads: Any) -> Touched:
    """Check rows and their gradients.

    Parameters
    ----------
    p : Parameter
        A table.
    name, grads_name : str
        How messages call both.
    rows : ndarray of int32 or int64, shape (indices,); sparse matrix; (indptr, indices, data); or None
        A matrix of shape (batch, rows) stands for the gradient ``matrix.T @ grads``, a triple for such a matrix in CSR form.
    grads : ndarray, shape (indices, ...) or (batch, ...); or sparse matrix in the parameter's shape if `rows` is None
        Only read.

    Raises
    ------
    TypeError, ValueError
        If the parameter is no table with its rows side by side, a form, a dtype, a shape or a length is another one, or there
        are no such rows.
    """
    require_table(p)
    sources = weights = None
    if rows is None:
        rows, grads = _stored(p, grads_name, grads)
    elif not isinstance(rows, np.ndarray):
        indptr, rows, weights = _of_batch(p, name, rows)
        sources = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
    rows = require_indices(name, rows)
    shape = (len(rows) if sources is None else len(indptr) - 1, *p.shape[1:])
    grads = require_array(grads_name, grads, COMPLEX if p.is_complex else FLOATS)
    if grads.shape != shape:
        each = name if sources is None else f"the batch of {name}"
        raise ValueError(f"{grads_name} must have the shape {shape}, for {each} and rows of {p.name}, got {grads.shape}")
    if p.detached(grads := np.ascontiguousarray(grads)) is not grads:
        raise ValueError(f"{grads_name} overlaps memory that the step writes to; a gradient needs memory of its own")
    gradients = parts(grads.reshape(-1))
    weights = None if weights is None else np.ascontiguousarray(weights, gradients.dtype)
    return Touched(_there(p, name, rows), gradients, p.theta.size // max(1, p.shape[0]), sources, weights)


def chosen_rows(p: Parameter, name: str, rows: Any) -> NDArray[Any]:
    """Check the rows of a table that are chosen in one of the forms that `touched_rows` takes, but for those without rows.

    Raises
    ------
    TypeError, ValueError
        If the parameter is no table, a form or a dtype is another one, or there are no such rows.
    """
    require_table(p)
    if not isinstance(rows, np.ndarray):
        _, rows, _ = _of_batch(p, name, rows)
    return _there(p, name, require_indices(name, rows))


def require_indices(name: str, indices: Any) -> NDArray[Any]:
    """The indices as `require_array` gives them; TypeError or ValueError unless they are a vector of int32 or int64."""
    found = require_array(name, indices, INDICES)
    if found.ndim != 1 or found.size > MOST:
        raise ValueError(f"{name} must be a vector of at most {MOST} indices, got the shape {found.shape}")
    return found


def _there(p: Parameter, name: str, given: NDArray[Any]) -> NDArray[Any]:
    """Rows as compiled code takes them; ValueError if the parameter hasn't got one of them."""
    rows: NDArray[Any] = np.ascontiguousarray(given, np.int64)
    # As unsigned numbers, negative ones are the largest. Where the maximum is, NumPy finds in less time than what it is.
    if rows.size and not 0 <= rows[rows.view(np.uint64).argmax()] < p.shape[0]:
        wrong = np.flatnonzero((rows < 0) | (rows >= p.shape[0]))
        raise ValueError(
            f"{name} must be from 0 to {p.shape[0] - 1}, as {p.name} has rows, got {rows[wrong[0]]} at index {wrong[0]}"
        )
    return rows


def summed(touched: Touched) -> tuple[NDArray[Any], NDArray[Any]]:
    """The unique rows, and the sum of the gradients of each: what compiled code finds, by NumPy."""
    rows, inverse = np.unique(touched.rows, return_inverse=True)
    own = touched.gradients.reshape(-1, touched.numbers)
    own = own if touched.sources is None else own[touched.sources]
    own = own if touched.weights is None else own * touched.weights[:, None]
    total = np.zeros((len(rows), touched.numbers), own.dtype)
    np.add.at(total, inverse, own)
    return rows, total


def require_table(p: Parameter) -> None:
    """Raise TypeError or ValueError unless it has rows that lie side by side."""
    if isinstance(p.leaf, Flat):
        raise TypeError(f"{p.name} is a Flat, whose arrays have no rows of their own; construct the optimizer with the arrays")
    if not p.shape or p.order != "C":
        raise ValueError(f"{p.name} must have rows that lie side by side, in C order; it has the shape {p.shape}")


def _stored(p: Parameter, name: str, grads: Any) -> tuple[NDArray[Any], Any]:
    """The rows of a sparse matrix in which something is stored, and these as a dense array."""
    if len(p.shape) != 2 or grads.shape != p.shape:
        raise ValueError(
            f"{name} is sparse and must have the shape of a table of two dimensions; it has {grads.shape}, {p.name} {p.shape}"
        )
    csr = grads.tocsr()
    rows = np.flatnonzero(np.diff(csr.indptr))
    return rows, csr[rows].toarray()


def _of_batch(p: Parameter, name: str, batch: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """``(indptr, indices, data)`` of a matrix in CSR form, whose columns are rows of the parameter."""
    names = [f"{name}[{i}]" for i in range(3)]
    if is_sparse(batch):
        if batch.shape[1:] != (p.shape[0],):
            raise ValueError(f"{name} must have {p.shape[0]} columns, one for each row of {p.name}; its shape is {batch.shape}")
        csr = batch.tocsr()
        batch = csr.indptr, csr.indices, csr.data
        names = [f"{name}.{part}" for part in ("indptr", "indices", "data")]
    if not isinstance(batch, tuple) or len(batch) != 3:
        raise TypeError(f"{name} must be a NumPy array, a sparse matrix or (indptr, indices, data), got {type(batch).__name__}")
    indptr, indices, data = batch
    indptr, indices = require_indices(names[0], indptr), require_indices(names[1], indices)
    data = require_array(names[2], data)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
        raise ValueError(f"{names[0]} must rise from 0 to {len(indices)}, the number of indices")
    if data.shape != indices.shape:
        raise ValueError(f"{names[2]} must have the shape {indices.shape} of the indices, got {data.shape}")
    return indptr, indices, data


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy's, which need not be imported to know it."""
    return hasattr(value, "tocsr")
