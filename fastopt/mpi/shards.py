"""Parameters as vectors that are cut into a shard for each rank, and how their elements move between ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import Flat, array_of
from fastopt.arrays.layout import memory_order
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.tree import leaves, with_leaves
from fastopt.engine.formats import bfloat16, decoded, encoded, plain

GRAIN = 1024  # numbers: shards begin on cache lines of the vector, and no complex number is cut in two

# Numbers that a rank receives at once: so few that their sums are made in the cache, while the next ones move; but of each rank
# so many that it isn't the number of messages that takes the time.
BUCKET, LEAST_MESSAGE = 4096 * GRAIN, 4 * GRAIN


class Shards:
    """The parameters of one dtype as one vector of real numbers, of which each rank steps a part.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    parameters : sequence of Parameter
        In the order in which they lie in the vector.
    is_halved : bool
        Whether gradients move as bfloat16.

    Attributes
    ----------
    gradient : ndarray
        The sum of the ranks' gradients, of the rank's own shard.
    """

    def __init__(self, comm: Any, parameters: Sequence[Parameter], is_halved: bool = False) -> None:
        self._comm, self.parameters, self._is_halved = comm, parameters, is_halved
        self._begins = [0, *itertools.accumulate(p.theta.size for p in parameters)]
        size, ranks, dtype = self._begins[-1], comm.size, parameters[0].dtype
        self._bounds = [min(size, -(-size * rank // ranks // GRAIN) * GRAIN) for rank in range(ranks)] + [size]
        self._counts = [end - begin for begin, end in itertools.pairwise(self._bounds)]
        own = self._counts[comm.rank]
        self.gradient = np.zeros(own, dtype)
        self._width = min(max(BUCKET // ranks, LEAST_MESSAGE), max(self._counts))
        # Two of each, so that one bucket moves while another one is added up.
        self._received = np.zeros((2, ranks, self._width), np.uint16 if is_halved else dtype)
        self._halved = np.zeros((2, ranks, self._width), np.uint16) if is_halved else None
        # Where there is only one array, it is such a vector itself.
        is_one, of_theta = len(parameters) == 1, plain(parameters[0].theta.dtype)
        self._vector = parameters[0].theta if is_one else np.zeros(size, of_theta)
        self._sent = self._vector if is_one or of_theta == dtype else np.zeros(size, dtype)

    def range_of(self, p: Parameter, rank: int | None = None) -> tuple[int, int]:
        """Which elements of a parameter are in the shard of a rank, by default this one's."""
        rank = self._comm.rank if rank is None else rank
        first, count = self._begins[self.parameters.index(p)], 1 + p.is_complex
        begin, end = (min(max(bound - first, 0), p.theta.size) for bound in self._bounds[rank : rank + 2])
        return begin // count, end // count

    def own_gradient(self, p: Parameter) -> NDArray[Any]:
        """The gradient of the rank's own part of a parameter, as a view of `gradient`."""
        begin, end = (bound * (1 + p.is_complex) for bound in self.range_of(p))
        first = self._begins[self.parameters.index(p)] - self._bounds[self._comm.rank]
        part = self.gradient[first + begin : first + end] if end > begin else self.gradient[:0]
        return part.view(p.array.dtype) if p.is_complex else part

    def reduce_scatter(self, gradients: Mapping[Parameter, NDArray[Any]]) -> None:
        """Add up the gradients of all ranks in their order, each rank those of its shard."""
        vectors = [decoded(gradients[p]) if p in gradients else np.zeros(p.theta.size, p.dtype) for p in self.parameters]
        if len(vectors) == 1:
            sent = vectors[0].astype(self.gradient.dtype, copy=False)
        else:
            sent = np.concatenate(vectors, out=self._sent, casting="same_kind")
        begins = range(0, max(self._counts), self._width or 1)
        requests = [self._send(sent, begin, slot) for slot, begin in enumerate(begins[:2])]
        for i, begin in enumerate(begins):
            requests[i % 2].Wait()
            end = min(begin + self._width, self.gradient.size)
            if begin < end:
                numbers = self._received[i % 2, :, : end - begin]
                np.add.reduce(decoded(numbers) if self._is_halved else numbers, axis=0, out=self.gradient[begin:end])
            if i + 2 < len(begins):
                requests[i % 2] = self._send(sent, begins[i + 2], i % 2)

    def _send(self, sent: NDArray[Any], begin: int, slot: int) -> Any:
        """Let each rank begin to have one bucket of its shard, which begins there."""
        counts = [min(max(count - begin, 0), self._width) for count in self._counts]
        places = [min(first + begin, sent.size) for first in self._bounds[:-1]]
        rows = [self._width * rank for rank in range(self._comm.size)]
        if self._halved is not None:
            for row, place, count in zip(self._halved[slot], places, counts, strict=True):
                _halve(sent[place : place + count], row[:count])
            sent, places = self._halved[slot], rows
        own = [counts[self._comm.rank]] * self._comm.size
        return self._comm.Ialltoallv([sent, (counts, places)], [self._received[slot], (own, rows)])

    def all_gather(self) -> None:
        """Let each rank have the parameters of all shards."""
        from mpi4py import MPI

        is_one = len(self.parameters) == 1
        begin, end = self._bounds[self._comm.rank : self._comm.rank + 2]
        places = list(zip(self.parameters, itertools.pairwise(self._begins), strict=True))
        for p, (first, last) in [] if is_one else places:
            low, high = max(begin, first), min(end, last)
            if low < high:
                self._vector[low:high] = p.theta[low - first : high - first].view(self._vector.dtype)
        bits = self._vector.view(f"u{self._vector.itemsize}")  # whatever they are: MPI needs not know
        self._comm.Allgatherv(MPI.IN_PLACE, [bits, (self._counts, self._bounds[:-1])])
        for p, (first, last) in [] if is_one else places:
            p.theta[...] = self._vector[first:last].view(p.theta.dtype)

    def gathered(self, p: Parameter, part: NDArray[Any]) -> NDArray[Any]:
        """An array in the shape of a parameter, from the parts that all ranks have of it."""
        ranges = [self.range_of(p, rank) for rank in range(self._comm.size)]
        whole = np.empty(p.array.size, part.dtype)
        counts, begins = [end - begin for begin, end in ranges], [begin for begin, _ in ranges]
        numbers = 1 + (part.dtype.kind == "c")
        places = [count * numbers for count in counts], [begin * numbers for begin in begins]
        own = np.ascontiguousarray(part)
        bits = f"u{own.itemsize // numbers}"  # whatever they are: MPI needs not know
        self._comm.Allgatherv(own.view(bits), [whole.view(bits), places])
        return whole.reshape(p.shape, order=p.order)

    def part(self, p: Parameter, leaf: Any) -> Any:
        """The rank's own part of an array that is shaped as a parameter: a vector, or a `Flat` with a part of each array."""
        if getattr(array_of(leaf), "shape", None) != p.shape:
            raise ValueError(f"arrays for {p.name} must have its shape {p.shape}, got {leaf!r:.100}")
        begin, end = self.range_of(p)
        if not isinstance(leaf, Flat):
            return leaf.reshape(-1, order=p.order)[begin:end]
        found, first = [], 0
        for _, array in leaves(leaf.tree, ""):
            low, high = (min(max(bound - first, 0), array.size) for bound in (begin, end))
            found.append(array.reshape(-1, order=memory_order(array))[low:high])
            first += math.prod(array.shape)
        return Flat(with_leaves(leaf.tree, found), leaf.buffer[begin:end])


def _halve(numbers: NDArray[Any], bits: NDArray[Any]) -> None:
    """Write numbers as the bits of bfloat16; ml_dtypes, where it is installed, does so three times as fast."""
    if (dtype := bfloat16()) == bits.dtype:
        bits[...] = encoded(numbers, dtype)
    else:
        np.copyto(bits.view(dtype), numbers, casting="unsafe")
