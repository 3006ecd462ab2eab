"""Many arrays in one buffer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.arrays.layout import NUMBERS, aligned_zeros, memory_order, one_of, require_array, shaped_like
from fastopt.arrays.tree import leaves, map_leaves


class Flat:
    """Many arrays as views of one buffer. Made by `flatten`.

    Attributes
    ----------
    buffer : ndarray, shape (size,)
        All elements, one array after the other; it begins on a cache line.
    tree : array, list, tuple or dict, nested as what was flattened
        Views of `buffer` with the shapes of the arrays.
    layout : list of tuple
        Name, shape and memory order of each array.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> flat = fastopt.flatten({"W": np.ones((2, 3)), "b": np.zeros(3)})
    >>> flat["W"].shape, flat.buffer.shape
    ((2, 3), (9,))
    >>> grads = flat.like()
    >>> grads["b"][...] = 1.0
    >>> grads.buffer
    array([0., 0., 0., 0., 0., 0., 1., 1., 1.])
    """

    def __init__(self, tree: Any, buffer: NDArray[Any]) -> None:
        offset = 0

        def view(array: NDArray[Any]) -> NDArray[Any]:
            nonlocal offset
            offset += array.size
            return shaped_like(buffer[offset - array.size : offset], array)

        self.buffer = buffer
        self.tree = map_leaves(view, tree)
        self.layout = [(name, leaf.shape, memory_order(leaf)) for name, leaf in leaves(self.tree, "")]

    def __getitem__(self, key: Any) -> Any:
        """``tree[key]``."""
        return self.tree[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def __contains__(self, key: Any) -> bool:
        return key in self.tree

    def __repr__(self) -> str:
        return f"Flat({self.tree!r})"

    def __getstate__(self) -> dict[str, Any]:
        # An aligned buffer is a view of its memory; its values alone are pickled, and laid out anew.
        return {"tree": self.tree}

    def __setstate__(self, state: dict[str, Any]) -> None:
        copy = _laid_out(state["tree"])
        self.buffer, self.tree, self.layout = copy.buffer, copy.tree, copy.layout

    def like(self, dtype: DTypeLike | None = None) -> Flat:
        """A new `Flat` of zeros with the same layout, for gradients for example.

        Parameters
        ----------
        dtype : dtype, optional
            By default the same; float32, float64, complex64, complex128, float16, bfloat16 (of ml_dtypes), or uint16 for the
            bits of bfloat16.

        Returns
        -------
        Flat

        Raises
        ------
        TypeError
            If `dtype` is another one.
        """
        chosen = self.buffer.dtype if dtype is None else one_of("dtype", dtype, NUMBERS)
        other = Flat(self.tree, aligned_zeros(self.buffer.size, chosen))
        other.layout = self.layout  # the same object, so that it need not be compared at each step
        return other


def flatten(params: Any) -> Flat:
    """Copy arrays into one aligned buffer, so that a step over all of them is one over a single vector.

    Parameters
    ----------
    params : ndarray, or list, tuple or dict of arrays, nested
        float32, float64, complex64, complex128, float16 or bfloat16, all of one dtype, of any shape. They are copied; the views
        in the result are what to work with.

    Returns
    -------
    Flat
        ``flat["W"]`` are the views, ``flat.buffer`` is the vector, ``flat.like()`` a gradient buffer of the same layout.

    Raises
    ------
    TypeError
        If a leaf is not an array, or of another dtype, or if the dtypes differ.
    ValueError
        If there is no array.
    """
    named = list(leaves(params, "params"))
    if not named:
        raise ValueError("params holds no array")
    for name, leaf in named:
        require_array(name, leaf, NUMBERS)
        if leaf.dtype != named[0][1].dtype:
            raise TypeError(f"all arrays must have one dtype: {named[0][0]} has {named[0][1].dtype}, {name} has {leaf.dtype}")
    return _laid_out(params)


def _laid_out(params: Any) -> Flat:
    arrays = [leaf for _, leaf in leaves(params, "")]
    flat = Flat(params, aligned_zeros(sum(array.size for array in arrays), arrays[0].dtype))
    for (_, view), array in zip(leaves(flat.tree, ""), arrays, strict=True):
        view[...] = array
    return flat


def array_of(leaf: Any) -> Any:
    """The buffer of a `Flat`, and anything else as it is."""
    return leaf.buffer if isinstance(leaf, Flat) else leaf


def equal(tree: Any, other: Any) -> bool:
    """Whether two trees have equal leaves in the same order, arrays compared element by element."""
    pairs = itertools.zip_longest(leaves(tree, ""), leaves(other, ""), fillvalue=("", None))
    return all(a is b or np.array_equal(array_of(a), array_of(b)) for (_, a), (_, b) in pairs)
