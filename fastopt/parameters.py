"""One parameter array with its state: the checks of what users hand over, and the vectors that kernels take."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from fastopt.arrays import ALIGNMENT, FLOATS, PAGE, aligned_zeros, is_contiguous, memory_order, require_array, shaped_like
from fastopt.engine.kernel import Kernel
from fastopt.engine.sums import Blocks
from fastopt.flat import Flat, array_of
from fastopt.memory import Memory

# NumPy makes one object of each, so that nearly all arrays can be told by identity.
FLOAT32, FLOAT64 = FLOATS


class Parameter:
    """An array, or a `Flat`, that is optimized in place.

    Parameters
    ----------
    name : str
        How messages call it.
    leaf : Flat, or ndarray of float32 or float64, C- or Fortran-contiguous, aligned, writable
        Held, not copied.
    memory : Memory
        What the optimizer writes to; the parameter is added.

    Attributes
    ----------
    array : ndarray
        The array, or the buffer of the `Flat`.
    theta : ndarray, shape (size,)
        The same memory as a vector.
    states : dict of ndarray, shape (size,)
        State vectors by name, in the order of `theta`.
    arrays : tuple of ndarray
        What the kernel updates: theta and the states that its rule uses.
    elements : dict of ndarray, shape (size,)
        What kernels read for every element, by name: rates, a mask.
    scalars : dict of ndarray, shape (tensors,)
        Running scalars that each tensor has of its own, see `Optimizer.advance`.
    kernels, measure_kernels : dict
        By the gradient's dtype, made when first needed.

    Raises
    ------
    TypeError
        If it is no array, or not of float32 or float64.
    ValueError
        If a kernel can't write to it in place, or it overlaps another parameter.
    """

    def __init__(self, name: str, leaf: Any, memory: Memory) -> None:
        array = array_of(leaf)
        require_array(name, array)
        array = np.asarray(array).view()  # an object of its own, whose shape nobody changes, and no subclass
        if not array.flags.writeable:
            raise ValueError(f"{name} is read-only, but a step must write to it")
        if not is_contiguous(array):
            raise ValueError(
                f"{name} must be contiguous, in C or Fortran order; it has strides {array.strides} and shape {array.shape}"
            )
        if not array.flags.aligned:
            raise ValueError(f"{name} must be aligned to its dtype {array.dtype}")
        self.name = name
        self.leaf = leaf
        self.array: NDArray[Any] = array
        self.shape = array.shape
        self.order = memory_order(array)
        self._contiguous = f"{self.order.lower()}_contiguous"  # the flag of an array in this order
        self.theta: NDArray[Any] = array.reshape(-1, order=self.order)
        self.states: dict[str, NDArray[Any]] = {}
        self.arrays: tuple[NDArray[Any], ...] = (self.theta,)
        self.elements: dict[str, NDArray[Any]] = {}
        self.scalars: dict[str, NDArray[Any]] = {}
        self.kernels: dict[np.dtype[Any], Kernel] = {}
        self.measure_kernels: dict[np.dtype[Any], Kernel] = {}
        self._memory = memory
        memory.add(name, self.theta)
        self._accepted: Callable[[], Any] = lambda: None
        self._scratch: NDArray[Any] | None = None

    def add_state(self, name: str, vector: NDArray[Any]) -> None:
        """Take a vector as a state."""
        self.states[name] = vector
        self._memory.add(self.name, vector)

    def move(self, memory: Memory) -> None:
        """Know of more memory that the optimizer writes to."""
        self._memory = memory

    def use(self, state_names: Sequence[str]) -> None:
        """Let the kernels update these states from now on."""
        self.arrays = (self.theta, *(self.states[name] for name in state_names))
        self.kernels.clear()
        self.measure_kernels.clear()
        self._owners = self._memory.owners  # all that the optimizer writes to is known by now

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The blocks of its tensors: of the arrays of a `Flat`, else of the array itself."""
        leaf = self.leaf
        return Blocks([math.prod(shape) for _, shape, _ in leaf.layout] if isinstance(leaf, Flat) else [self.theta.size])

    @property
    def tensors(self) -> int:
        """How many tensors it has."""
        return len(self.blocks.firsts)

    def shaped(self, vector: NDArray[Any]) -> NDArray[Any]:
        """View of a vector of the parameter's size in the shape and memory order of `array`."""
        return shaped_like(vector, self.array)

    def view(self, vector: NDArray[Any]) -> Any:
        """The same as users see it: for a `Flat` one of its layout."""
        return Flat(self.leaf.tree, vector) if isinstance(self.leaf, Flat) else self.shaped(vector)

    def unwrap(self, name: str, leaf: Any) -> Any:
        """The array of something that comes in the form of this parameter."""
        if not isinstance(leaf, Flat):
            if isinstance(self.leaf, Flat) and not isinstance(leaf, np.ndarray):
                raise TypeError(f"{name} must be a Flat as {self.name} is, or a NumPy array, got {type(leaf).__name__}")
            return leaf
        if not isinstance(self.leaf, Flat):
            raise TypeError(f"{name} must be a NumPy array as {self.name} is, got a Flat")
        if leaf.layout != self.leaf.layout:
            raise ValueError(f"{name} has another layout than {self.name}; make it with like()")
        return leaf.buffer

    def gradient(self, name: str, g: Any) -> NDArray[Any]:
        """Check a gradient and give it as a vector in the parameter's memory order.

        Parameters
        ----------
        name : str
            How messages call it.
        g : Flat, or ndarray of float32 or float64 in the parameter's shape
            Only read. If its elements don't lie in the parameter's order, it is copied to a buffer that is kept for the
            next time.

        Raises
        ------
        TypeError
            If it is no array, or not of float32 or float64.
        ValueError
            If its shape differs, or if it lies in memory that the step writes to.
        """
        # First the way of nearly all steps: an array with memory of its own can't overlap, and one accepted before doesn't.
        if type(g) is ndarray and g.shape == self.shape and ((dtype := g.dtype) is FLOAT32 or dtype is FLOAT64):
            flags = g.flags
            owns = flags.owndata and id(g) not in self._owners
            if (owns or g is self._accepted()) and flags.aligned and getattr(flags, self._contiguous):
                return g if g.ndim == 1 else g.ravel("K")
        return self._checked_gradient(name, self.unwrap(name, g))

    def _checked_gradient(self, name: str, g: Any) -> NDArray[Any]:
        if isinstance(g, np.generic):  # what NumPy makes of 0-d arrays
            g = np.asarray(g)
        require_array(name, g)
        g = np.asarray(g)  # no subclass, which could lie about its shape
        if g.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape} of {self.name}, got {g.shape}")
        if self._is_readable(g):
            if other := self._memory.overlapped(g):
                raise ValueError(f"{name} overlaps {other} or its state; a gradient needs memory of its own")
            self._accepted = weakref.ref(g)
            vector: NDArray[Any] = g.reshape(-1, order=self.order)
            return vector
        if any(np.shares_memory(g, array) for array in (self.theta, *self.states.values())):
            raise ValueError(f"{name} overlaps {self.name} or its state; a gradient needs memory of its own")
        if self._scratch is None or self._scratch.dtype != g.dtype:
            self._scratch = aligned_zeros(g.size, g.dtype)
        shaped_like(self._scratch, self.array)[...] = g
        return self._scratch

    def detached(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or a copy if it lies in memory that steps write to."""
        return array if self._memory.overlapped(array) is None else array.copy("K")

    def _is_readable(self, g: NDArray[Any]) -> bool:
        """Whether a kernel can read `g` where it is."""
        flags = g.flags
        return bool(flags.aligned and getattr(flags, self._contiguous))


def allocate(parameters: Sequence[Parameter], name: str) -> None:
    """Give each parameter a state of zeros under this name; those of one dtype share one flat buffer."""
    for dtype in FLOATS:
        alike = [p for p in parameters if p.theta.dtype == dtype]
        grain = ALIGNMENT // dtype.itemsize  # every segment begins on a cache line
        lengths = [-(-p.theta.size // grain) * grain for p in alike]
        # Streams at the same place in their pages get in each other's way, since caches and store buffers look at that first.
        others = max((len(p.states) for p in alike), default=0)
        buffer = aligned_zeros(sum(lengths), dtype, page_offset=(1 + others) * 16 * ALIGNMENT % PAGE)
        begin = 0
        for p, length in zip(alike, lengths, strict=True):
            p.add_state(name, buffer[begin : begin + p.theta.size])
            begin += length
