"""Flat buffers: aligned memory, arrays as vectors, and many arrays in one buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.tree import leaves, map_leaves

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def aligned_zeros(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Vector of zeros that begins on a cache line.

    The operating system hands out large pages untouched, so the thread that first steps an element places its page.
    """
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    offset = -address(raw) % ALIGNMENT
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def address(array: NDArray[Any]) -> int:
    """Where the first element lies in memory."""
    return int(array.__array_interface__["data"][0])


def is_flat(array: NDArray[Any]) -> bool:
    """Whether the elements lie side by side, in C or in Fortran order."""
    return array.flags.c_contiguous or array.flags.f_contiguous


def memory_order(array: NDArray[Any]) -> Any:
    """``"F"`` for an array that is contiguous in Fortran order only, else ``"C"``."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def shaped_like(vector: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """View of a vector in the shape and memory order of `array`."""
    return vector.reshape(array.shape, order=memory_order(array))


def require_array(name: str, array: Any) -> None:
    """Raise TypeError unless `array` is a plain array of float32 or float64 in the machine's byte order."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in FLOATS:
        raise TypeError(f"{name} must be of float32 or float64, got {array.dtype}")


def float_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, if it is float32 or float64 in the machine's byte order; otherwise raise TypeError."""
    try:
        for allowed in FLOATS:
            if allowed == dtype:
                return allowed
    except TypeError:
        pass  # not a dtype at all
    raise TypeError(f"{name} must be float32 or float64, got {dtype!r}")


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

    def __repr__(self) -> str:
        return f"Flat({self.tree!r})"

    def __getstate__(self) -> dict[str, Any]:
        # An aligned buffer is a view of its memory; its values alone are pickled, and laid out anew.
        return {"tree": self.tree}

    def __setstate__(self, state: dict[str, Any]) -> None:
        copy = flatten(state["tree"])
        self.buffer, self.tree, self.layout = copy.buffer, copy.tree, copy.layout

    def like(self, dtype: DTypeLike | None = None) -> Flat:
        """A new `Flat` of zeros with the same layout, for gradients for example.

        Parameters
        ----------
        dtype : float32 or float64, optional
            By default the same.

        Raises
        ------
        TypeError
            If `dtype` is another one.
        """
        chosen = self.buffer.dtype if dtype is None else float_dtype("dtype", dtype)
        return Flat(self.tree, aligned_zeros(self.buffer.size, chosen))


def flatten(params: Any) -> Flat:
    """Copy arrays into one aligned buffer, so that a step over all of them is one kernel launch.

    Parameters
    ----------
    params : ndarray, or list, tuple or dict of arrays, nested
        float32 or float64, all of one dtype, of any shape. They are copied; the views in the result are what to work with.

    Returns
    -------
    Flat
        ``flat["W"]`` are the views, ``flat.buffer`` is the vector, ``flat.like()`` a gradient buffer of the same layout.

    Raises
    ------
    TypeError
        If a leaf is not an array, or not of float32 or float64, or if the dtypes differ.
    ValueError
        If there is no array.
    """
    named = list(leaves(params, "params"))
    if not named:
        raise ValueError("params holds no array")
    for name, leaf in named:
        require_array(name, leaf)
        if leaf.dtype != named[0][1].dtype:
            raise TypeError(f"all arrays must have one dtype: {named[0][0]} has {named[0][1].dtype}, {name} has {leaf.dtype}")
    flat = Flat(params, aligned_zeros(sum(leaf.size for _, leaf in named), named[0][1].dtype.type))
    for (_, view), (_, leaf) in zip(leaves(flat.tree, ""), named, strict=True):
        view[...] = leaf
    return flat
