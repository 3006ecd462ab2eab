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

from fastopt.arrays import (
    ALIGNED,
    ALIGNMENT,
    C_CONTIGUOUS,
    COMPLEX,
    F_CONTIGUOUS,
    FLOATS,
    OWNDATA,
    PAGE,
    address,
    aligned_zeros,
    complex_of,
    is_contiguous,
    memory_order,
    parts,
    require_array,
    shaped_like,
)
from fastopt.engine.compile import Rule
from fastopt.engine.kernel import Kernel
from fastopt.engine.sums import Blocks
from fastopt.flat import Flat, array_of
from fastopt.memory import Memory

# NumPy makes one object of each, so that nearly all arrays can be told by identity.
FLOAT32, FLOAT64 = FLOATS

# The state that holds the average of theta.
AVERAGE = "theta_ema"


class Parameter:
    """An array, or a `Flat`, that is optimized in place.

    Parameters
    ----------
    name : str
        How messages call it.
    leaf : Flat, or ndarray of float32, float64, complex64 or complex128, C- or Fortran-contiguous, aligned, writable
        Held, not copied.
    memory : Memory
        What the optimizer writes to; the parameter is added.
    complex_mode : {"parts", "modulus"}, default "parts"
        Whether rules take the parts of complex numbers one by one, or pairs of them.

    Attributes
    ----------
    array : ndarray
        The array, or the buffer of the `Flat`.
    theta : ndarray, shape (size,)
        The same memory as a vector of real numbers: of complex ones, real and imaginary parts in turn.
    states : dict of ndarray, shape (size,)
        State vectors by name, in the order of `theta`.
    copy : ndarray of shape (size,), or None
        Where to write the new theta a second time, as kernels take it.
    arrays : tuple of ndarray
        What the kernel updates: theta, the copy, the average, and the states that the optimizer's own rule uses.
    measured : tuple of ndarray
        What measures see: theta, and the states of the optimizer's own rule.
    elements : dict of ndarray, shape (size,)
        What kernels read for every element, by name: rates, a mask.
    is_paired : bool
        Whether rules take pairs. Kernels then get arrays of shape ``(size / 2, 2)`` of all that is complex.
    scalars : dict of ndarray, shape (tensors,)
        Running scalars that each tensor has of its own, see `Optimizer.advance`.
    kernels : dict
        By the gradient's dtype, made when first needed.
    measure_kernels : dict
        By measure and the gradient's dtype.

    Raises
    ------
    TypeError
        If it is no array, or of another dtype.
    ValueError
        If a kernel can't write to it in place, or it overlaps another parameter.
    """

    def __init__(self, name: str, leaf: Any, memory: Memory, complex_mode: str = "parts") -> None:
        array = array_of(leaf)
        require_array(name, array, (*FLOATS, *COMPLEX))
        array = np.asarray(array).view()  # an object of its own, whose shape nobody changes, and no subclass
        require_writable(name, array)
        if not is_contiguous(array):
            raise ValueError(
                f"{name} must be contiguous, in C or Fortran order; it has strides {array.strides} and shape {array.shape}"
            )
        self.name = name
        self.leaf = leaf
        self.array: NDArray[Any] = array
        self.shape = array.shape
        self.order = memory_order(array)
        self._contiguous = C_CONTIGUOUS if self.order == "C" else F_CONTIGUOUS  # the flag of an array in this order
        self._readable = ALIGNED | self._contiguous  # those of one that kernels can read
        self.is_complex = array.dtype.kind == "c"
        self.theta: NDArray[Any] = parts(array.reshape(-1, order=self.order))
        self.is_paired = self.is_complex and complex_mode == "modulus"
        # Of gradients that need only be looked at briefly.
        self._plain_shape = None if self.is_complex else array.shape
        self.copy: NDArray[Any] | None = None
        self.states: dict[str, NDArray[Any]] = {}
        self.arrays: tuple[NDArray[Any], ...] = (self.formed(self.theta),)
        self.measured: tuple[NDArray[Any], ...] = self.arrays
        self.elements: dict[str, NDArray[Any]] = {}
        self.scalars: dict[str, NDArray[Any]] = {}
        self.kernels: dict[np.dtype[Any], Kernel] = {}
        self.measure_kernels: dict[tuple[Rule, np.dtype[Any]], Kernel] = {}
        self._memory = memory
        memory.add(name, self.theta)
        self._accepted: Callable[[], Any] = lambda: None
        self._scratch: NDArray[Any] | None = None
        self._scratch_parts = self.theta[:0]

    def add_state(self, name: str, vector: NDArray[Any]) -> None:
        """Take a vector as a state."""
        self.states[name] = vector
        self._memory.add(self.name, vector)

    def start(self, name: str, value: Any) -> None:
        """Fill a state: with a vector as `theta` is one, or with a number, which is real where rules take pairs."""
        state = self.states[name]
        (self.shaped(state) if self.is_paired and np.ndim(value) == 0 else state)[...] = value

    def move(self, memory: Memory) -> None:
        """Know of more memory that the optimizer writes to."""
        self._memory = memory
        self.note_memory()

    def note_memory(self) -> None:
        """Look at all gradients anew: what the optimizer writes to has changed."""
        self._owners = self._memory.owners
        self._accepted = lambda: None

    def require_writable(self, name: str, array: NDArray[Any]) -> None:
        """Raise TypeError or ValueError unless kernels can write the new theta to an array."""
        if (array.dtype.kind == "c") != self.is_complex:
            raise TypeError(f"{name} must be {'complex' if self.is_complex else 'real'} as {self.name} is, got {array.dtype}")
        if array.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape} of {self.name}, got {array.shape}")
        require_writable(name, array)
        if not array.flags.num & self._contiguous:
            raise ValueError(f"{name} must be contiguous in {self.order} order, as {self.name} is")

    def use(self, state_names: Sequence[str], has_average: bool = False) -> None:
        """Let the kernels update these states of the optimizer's own rule from now on, and the average of theta."""
        theta, *own = (self.formed(vector) for vector in (self.theta, *(self.states[name] for name in state_names)))
        copy = [] if self.copy is None else [self.formed(self.copy)]
        average = [self.formed(self.states[AVERAGE])] if has_average else []
        self.arrays = (theta, *copy, *average, *own)
        self.measured = (theta, *own)
        self.kernels.clear()
        self.measure_kernels.clear()
        self._owners = self._memory.owners

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The blocks of its tensors: of the arrays of a `Flat`, else of the array itself."""
        leaf = self.leaf
        sizes = [math.prod(shape) for _, shape, _ in leaf.layout] if isinstance(leaf, Flat) else [self.array.size]
        return Blocks([size * (1 + self.is_complex - self.is_paired) for size in sizes])

    @property
    def tensors(self) -> int:
        """How many tensors it has."""
        return len(self.blocks.firsts)

    @property
    def length(self) -> int:
        """How many elements loops go over."""
        return len(self.arrays[0])

    def formed(self, vector: NDArray[Any]) -> NDArray[Any]:
        """A vector as kernels take it: in pairs, if it is complex and rules take those."""
        return vector.reshape(-1, 2) if self.is_paired and vector.size != self.array.size else vector

    def for_each_part(self, vector: NDArray[Any]) -> NDArray[Any]:
        """Numbers for the elements as numbers for `theta`: of complex ones for their parts, of real ones for both parts."""
        if self.is_paired or not self.is_complex:
            return vector
        return parts(vector) if vector.dtype.kind == "c" else np.repeat(vector, 2)

    def place(self, i: int) -> tuple[str, tuple[int, ...]]:
        """The array that has element `i` of `theta`, and its index there."""
        i //= 1 + self.is_complex
        layout = self.leaf.layout if isinstance(self.leaf, Flat) else [("", self.shape, self.order)]
        begins = np.cumsum([0, *(math.prod(shape) for _, shape, _ in layout)])
        tensor = int(np.searchsorted(begins, i, side="right")) - 1
        name, shape, order = layout[tensor]
        return self.name + name, tuple(map(int, np.unravel_index(i - begins[tensor], shape, order=order)))

    def shaped(self, vector: NDArray[Any]) -> NDArray[Any]:
        """View of a vector of the parameter's size in the shape and memory order of `array`."""
        return shaped_like(self._elements(vector), self.array)

    def _elements(self, vector: NDArray[Any]) -> NDArray[Any]:
        """A vector with an item for each element: complex ones instead of pairs of real ones."""
        return vector if vector.size == self.array.size else vector.view(complex_of(vector.dtype))

    def view(self, vector: NDArray[Any]) -> Any:
        """The same as users see it: for a `Flat` one of its layout."""
        return Flat(self.leaf.tree, self._elements(vector)) if isinstance(self.leaf, Flat) else self.shaped(vector)

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
        g : Flat, or ndarray of float32 or float64 (complex for complex parameters) in the parameter's shape
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
        if type(g) is ndarray and g.shape == self._plain_shape and ((dtype := g.dtype) is FLOAT32 or dtype is FLOAT64):
            flags = g.flags.num
            if flags & self._readable == self._readable and (
                (flags & OWNDATA and id(g) not in self._owners) or g is self._accepted()
            ):
                return g if g.ndim == 1 else g.ravel("K")
        return self._checked_gradient(name, self.unwrap(name, g))

    def _checked_gradient(self, name: str, g: Any) -> NDArray[Any]:
        if isinstance(g, np.generic):  # what NumPy makes of 0-d arrays
            g = np.asarray(g)
        require_array(name, g, COMPLEX if self.is_complex else FLOATS)
        g = np.asarray(g)  # no subclass, which could lie about its shape
        if g.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape} of {self.name}, got {g.shape}")
        if self._is_readable(g):
            if other := self._memory.overlapped(g):
                raise ValueError(f"{name} overlaps {other} or its state; a gradient needs memory of its own")
            self._accepted = weakref.ref(g)
            return self.formed(parts(g.reshape(-1, order=self.order)))
        if any(np.shares_memory(g, array) for array in (self.theta, *self.states.values())):
            raise ValueError(f"{name} overlaps {self.name} or its state; a gradient needs memory of its own")
        if self._scratch is None or self._scratch.dtype != g.dtype:
            self._scratch = aligned_zeros(g.size, g.dtype)
            self._scratch_parts = self.formed(parts(self._scratch))
        shaped_like(self._scratch, self.array)[...] = g
        return self._scratch_parts

    def is_copy(self, vector: NDArray[Any]) -> bool:
        """Whether a vector that `gradient` gave is a copy of the gradient."""
        return vector is self._scratch_parts

    def detached(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or a copy if it lies in memory that steps write to."""
        return array if self._memory.overlapped(array) is None else array.copy("K")

    def _is_readable(self, g: NDArray[Any]) -> bool:
        """Whether a kernel can read `g` where it is."""
        return g.flags.num & self._readable == self._readable


def require_writable(name: str, array: NDArray[Any]) -> None:
    """Raise ValueError unless kernels can write to an array."""
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but a step must write to it")
    if not array.flags.aligned:
        raise ValueError(f"{name} must be aligned to its dtype {array.dtype}")


def allocate(parameters: Sequence[Parameter], name: str, is_paired: bool = True) -> None:
    """Give each parameter a state of zeros under this name; those of one dtype share one flat buffer.

    Where rules take pairs, it is complex if it is paired itself, else real.
    """
    for dtype in FLOATS:
        alike = [p for p in parameters if p.theta.dtype == dtype]
        grain = ALIGNMENT // dtype.itemsize
        sizes = [p.theta.size if is_paired else p.length for p in alike]
        # Every segment begins where theta does in its cache line, so that one of their vectors lies across two where all do.
        offsets = [address(p.theta) % ALIGNMENT // dtype.itemsize for p in alike]
        lengths = [-(-(offset + size) // grain) * grain for offset, size in zip(offsets, sizes, strict=True)]
        # Streams at the same place in their pages get in each other's way, since caches and store buffers look at that first.
        others = max((len(p.states) for p in alike), default=0)
        buffer = aligned_zeros(sum(lengths), dtype, page_offset=(1 + others) * 16 * ALIGNMENT % PAGE)
        begin = 0
        for p, offset, size, length in zip(alike, offsets, sizes, lengths, strict=True):
            p.add_state(name, buffer[begin + offset : begin + offset + size])
            begin += length
