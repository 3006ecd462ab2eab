"""One parameter array with its state: the checks of what users hand over, and the vectors that spans take."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.codes import Codes, write
from fastopt.arrays.flat import Flat, array_of
from fastopt.arrays.layout import (
    ALIGNED,
    ALIGNMENT,
    C_CONTIGUOUS,
    COMPLEX,
    F_CONTIGUOUS,
    NUMBERS,
    PAGE,
    REAL,
    aligned_zeros,
    complex_of,
    is_contiguous,
    memory_order,
    parts,
    require_array,
    shaped_like,
)
from fastopt.arrays.mapped import MappedFile
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.tree import leaves
from fastopt.engine.formats import computing
from fastopt.engine.tables import address

# The state that holds the average of theta.
AVERAGE = "theta_ema"


class Copied(np.ndarray[Any, Any]):
    """A copy of a gradient, as a vector that spans take. When it is no more, its memory is kept for the next one."""


class Parameter:
    """An array, or a `Flat`, that is optimized in place.

    Parameters
    ----------
    name : str
        How messages call it.
    leaf : Flat, or ndarray of one of `NUMBERS`, C- or Fortran-contiguous
        Held, not copied. Before it is stepped it must be aligned and writable; see `require_writable`.
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
    dtype : dtype
        In which rules compute.
    states : dict of ndarray, shape (size,)
        State vectors by name, in the order of `theta`.
    of_rows : collection of str
        The states that have one number for each row, that is for each index of the first axis.
    copy : ndarray of shape (size,), or None
        Where to write the new theta a second time, as spans take it.
    elements : dict of ndarray, shape (size,)
        What spans read for every element, by name: rates, a mask.
    first : int
        The place of its first element among all that stochastic rounding has noise for.
    is_paired : bool
        Whether rules take pairs. Spans then get arrays of shape ``(size / 2, 2)`` of all that is complex.
    scalars : mapping of str to ndarray, shape (tensors,)
        Running scalars that each tensor has of its own, see `Optimizer.decide`.

    Raises
    ------
    TypeError
        If it is no array, or of another dtype.
    ValueError
        If it is not contiguous, or overlaps another parameter.
    """

    def __init__(self, name: str, leaf: Any, memory: Memory, complex_mode: str = "parts") -> None:
        array = array_of(leaf)
        array = require_array(name, array, NUMBERS).view()  # an object of its own, whose shape nobody changes
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
        self.readable = ALIGNED | self._contiguous  # those of one that spans can read
        self.is_complex = array.dtype.kind == "c"
        self.theta: NDArray[Any] = parts(array.reshape(-1, order=self.order))
        self.dtype = computing(self.theta.dtype)
        self.is_paired = self.is_complex and complex_mode == "modulus"
        self.first = 0
        self.copy: NDArray[Any] | None = None
        self.states: dict[str, NDArray[Any]] = {}
        self.of_rows: Collection[str] = ()
        self.elements: dict[str, NDArray[Any]] = {}
        self.scalars: MutableMapping[str, NDArray[Any]] = {}
        self._memory = memory
        memory.add(name, self.theta)
        self._kept: list[NDArray[Any]] = []  # memory for a copy of a gradient, while there is none

    def start(self, name: str, value: Any) -> None:
        """Fill a state: with a vector as `theta` is one, or with a number, which is real where rules take pairs."""
        state = self.states[name]
        numbers = state if state.dtype == self.dtype else np.zeros(state.size, self.dtype)
        (self.shaped(numbers) if self.is_paired and np.ndim(value) == 0 else numbers)[...] = value
        if numbers is not state:
            write(state, numbers)

    def require_writable(self, name: str, array: NDArray[Any]) -> None:
        """Raise TypeError or ValueError unless kernels can write the new theta to an array."""
        if (array.dtype.kind == "c") != self.is_complex:
            raise TypeError(f"{name} must be {'complex' if self.is_complex else 'real'} as {self.name} is, got {array.dtype}")
        if array.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape} of {self.name}, got {array.shape}")
        require_writable(name, array)
        if not array.flags.num & self._contiguous:
            raise ValueError(f"{name} must be contiguous in {self.order} order, as {self.name} is")

    def tensor_sizes(self) -> list[int]:
        """How many elements loops go over in each of its tensors: the arrays of a `Flat`, else the array itself."""
        leaf = self.leaf
        sizes = [math.prod(shape) for _, shape, _ in leaf.layout] if isinstance(leaf, Flat) else [self.array.size]
        return [size * (1 + self.is_complex - self.is_paired) for size in sizes]

    def sizes_of(self, state: NDArray[Any]) -> list[int]:
        """How many numbers of a state each of its tensors has."""
        return [size * (state.size // max(1, self.length)) for size in self.tensor_sizes()]

    @property
    def has_codes(self) -> bool:
        """Whether states of it are of 8 bits, with scales that neighbours share."""
        return any(isinstance(state, Codes) for state in self.states.values())

    @property
    def tensors(self) -> int:
        """How many tensors it has."""
        return len(self.leaf.layout) if isinstance(self.leaf, Flat) else 1

    @property
    def length(self) -> int:
        """How many elements loops go over."""
        return self.theta.size // (1 + self.is_paired)

    @property
    def width(self) -> int:
        """How many elements loops go over in each row."""
        rows: int = self.shape[0]
        return self.length // max(1, rows)

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

    def state(self, name: str) -> NDArray[Any]:
        """View of a state in the parameter's shape, or as a vector with one number for each row."""
        return self.states[name] if name in self.of_rows else self.shaped(self.states[name])

    def state_view(self, name: str) -> Any:
        """The same as users see it; None if there is no such state."""
        if name not in self.states:
            return None
        return self.states[name] if name in self.of_rows else self.view(self.states[name])

    def view(self, vector: NDArray[Any]) -> Any:
        """The same as users see it: for a `Flat` one of its layout."""
        if not isinstance(self.leaf, Flat):
            return self.shaped(vector)
        flat = Flat(self.leaf.tree, self._elements(vector))
        if isinstance(vector, Codes):
            vector.share_scales(tensor for _, tensor in leaves(flat.tree, ""))
        return flat

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
        g : Flat, or ndarray of one of `REAL` (complex for complex parameters) in the parameter's shape
            Only read. If its elements don't lie in the parameter's order, what is given is a `Copied`.

        Raises
        ------
        TypeError
            If it is no array, or of another dtype.
        ValueError
            If its shape differs, or if it lies in memory that the step writes to.
        """
        g = self.unwrap(name, g)
        if isinstance(g, np.generic):  # what NumPy makes of 0-d arrays
            g = np.asarray(g)
        g = require_array(name, g, COMPLEX if self.is_complex else REAL)
        if g.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape} of {self.name}, got {g.shape}")
        if g.flags.num & self.readable == self.readable:
            if other := self._memory.overlapped(g):
                raise ValueError(f"{name} overlaps {other} or its state; a gradient needs memory of its own")
            return self.formed(parts(g.reshape(-1, order=self.order)))
        if any(np.shares_memory(g, array) for array in (self.theta, *self.states.values())):
            raise ValueError(f"{name} overlaps {self.name} or its state; a gradient needs memory of its own")
        # A signal handler, or another thread, may need a copy before this one is used: theirs has memory of its own.
        memory = self._kept.pop() if self._kept else None
        if memory is None or memory.dtype != g.dtype:
            memory = aligned_zeros(g.size, g.dtype)
        shaped_like(memory, self.array)[...] = g
        copied = self.formed(parts(memory)).view(Copied)
        weakref.finalize(copied, _keep, self._kept, memory)
        return copied

    def written(self) -> list[NDArray[Any]]:
        """The vectors that steps write to besides the parameter itself."""
        return [*self.states.values(), *([] if self.copy is None else [self.copy])]

    def detached(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or a copy if it lies in memory that steps write to."""
        return array if self._memory.overlapped(array) is None else array.copy("K")


def _keep(kept: list[NDArray[Any]], memory: NDArray[Any]) -> None:
    """Keep memory for the next copy; that of one is enough."""
    kept[:] = [memory]


def require_writable(name: str, array: NDArray[Any]) -> None:
    """Raise ValueError unless kernels can write to an array."""
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but a step must write to it")
    if not array.flags.aligned:
        raise ValueError(f"{name} must be aligned to its dtype {array.dtype}")


def allocate(
    parameters: Sequence[Parameter],
    name: str,
    memory: Memory,
    dtypes: Sequence[np.dtype[Any]],
    is_paired: bool = True,
    file: MappedFile | None = None,
) -> None:
    """Give each parameter a state of zeros under this name, of its own dtype; those of one dtype share one flat buffer.

    Where rules take pairs, it is complex if it is paired itself, else real. The buffers are added to the memory. Those in a
    file have what the file has, and lie there as parameters in any other process would have them lie.
    """
    for dtype in dict.fromkeys(dtypes):
        alike = [p for p, own in zip(parameters, dtypes, strict=True) if own == dtype]
        grain = ALIGNMENT // dtype.itemsize
        # Streams at the same place in their pages get in each other's way, since caches and store buffers look at that first.
        others = max(len(p.states) for p in alike)
        begins, sizes, end = [], [], 0
        for p in alike:
            # Where theta comes to a cache line, so does the state, so that one of their vectors lies across two where all do.
            before = 0 if file else -address(p.theta) % ALIGNMENT // p.theta.itemsize
            begins.append(end + (-before) % grain)
            sizes.append(p.shape[0] if name in p.of_rows else p.theta.size if is_paired else p.length)
            end = -(-(begins[-1] + sizes[-1]) // grain) * grain
        zeros = file.zeros if file else aligned_zeros
        buffer = zeros(end, dtype, page_offset=(1 + others) * 16 * ALIGNMENT % PAGE)
        for p, begin, size in zip(alike, begins, sizes, strict=True):
            p.states[name] = buffer[begin : begin + size]
        memory.add_buffer(buffer, [p.name for p in alike], begins)
