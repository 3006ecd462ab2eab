"""Sums over the ranks of a communicator, in the order of the ranks."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.mpi.agreement import described, options, together
from fastopt.optimizer import Optimizer


class InRankOrder:
    """Adds arrays over all ranks, for the argument ``reduce`` of optimizers.

    Every rank gets the parts of all, and adds them up in their order. So all have the same bits, and so has every run with as
    many ranks, whatever algorithm the library of MPI would choose for a sum.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self._thread = threading.get_ident()

    def __call__(self, array: NDArray[Any]) -> None:
        """Leave the sums in the array, which has the same length on all ranks."""
        self.require_thread()
        parts = np.empty((self.comm.size, array.size))
        self.comm.Allgather(array, parts)
        np.add.reduce(parts, axis=0, out=array)

    def told(self, message: str | None) -> str:
        """What the first rank that has something to say says, when all have been asked."""
        said = self.comm.allgather(message)
        return next((f"rank {rank}: {each}" for rank, each in enumerate(said) if each is not None), "")

    def digest(self, optimizer: Optimizer) -> int:
        """A number that is the same on all ranks if they have the same options, but for learning rates."""
        lasting = [each for each in options(optimizer).items() if not each[0].startswith("lr ")]
        return zlib.crc32(repr(lasting).encode())

    def compare(self, optimizer: Optimizer, method: str) -> None:
        """Raise an error on all ranks that says in which method, option, counter or rate of the present step they differ."""
        with together(self.comm) as same:
            same |= {"the method that is called": method} | described(optimizer)
            same |= {f"the learning rate of group {i}": group.rate for i, group in enumerate(optimizer.param_groups)}

    def require_thread(self) -> None:
        """Raise RuntimeError in another thread than the one in which it was made, unless MPI allows that."""
        if threading.get_ident() != self._thread:
            from mpi4py import MPI

            if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
                raise RuntimeError(
                    "MPI was not initialized for several threads (MPI_THREAD_MULTIPLE): step in the thread that began"
                )

    def __deepcopy__(self, memo: Any) -> InRankOrder:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("an optimizer of several ranks can't be pickled, for a communicator can't; use its state dict")
