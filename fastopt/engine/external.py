"""Functions of C that compiled code calls: Numba's number of threads, and Python's lock."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import models, register_model


class External(types.ExternalFunction):  # type: ignore[misc]
    """A function of C that compiled code calls; without a compiler there is nothing to do, since one thread does all."""

    def __call__(self, *arguments: Any) -> int:
        """Do nothing."""
        return 0


register_model(External)(models.OpaqueModel)


# What Numba's own parallel code calls. In Python, with checks, reading and setting the number takes longer than a small launch,
# and Numba doesn't cache a kernel that calls `numba.set_num_threads`.
get_num_threads = External("get_num_threads", types.intp())  # as Numba declares it
set_num_threads = External("set_num_threads", types.void(types.int32))
save_thread = External("PyEval_SaveThread", types.intp())
restore_thread = External("PyEval_RestoreThread", types.void(types.intp))
