"""Guard zones: a page before and a page behind each array, which nobody may write to, and nothing good is read from."""

import contextlib
import math
import sys
import types
from unittest import mock

import numpy as np

from fastopt.arrays.layout import PAGE, aligned_zeros
from fastopt.step import decided, groups, missed_steps, plan, row_plan, stepping

UNTOUCHED = b"\xff"  # as numbers of all formats they are NaN, and as places out of reach

# Where steps find what they count, sum up and look up. What has a value for each element comes from `aligned_zeros`.
TABLES = (decided, groups, missed_steps, plan, row_plan, stepping)


class Guards:
    """Makes arrays in the middle of memory that is its own, and looks whether that has stayed as it was."""

    def __init__(self):
        self._zones = []

    def zeros(self, size, dtype, page_offset=0):
        """What `aligned_zeros` gives."""
        length = int(size) * np.dtype(dtype).itemsize
        whole = aligned_zeros(length + 2 * PAGE, np.uint8, page_offset)
        for zone in (whole[:PAGE], whole[PAGE + length :]):
            zone[...] = UNTOUCHED[0]
            self._zones.append(zone)
        return whole[PAGE : PAGE + length].view(dtype)

    def full(self, shape, value, dtype=np.float64):
        """What NumPy's function gives."""
        array = self.zeros(math.prod(np.atleast_1d(shape)), dtype).reshape(shape)
        array[...] = value
        return array

    def empty(self, shape, dtype=np.float64):
        """The same, of bytes that are in the zones, too: nobody should count on them."""
        array = self.full(shape, 0, dtype)
        array.view(np.uint8)[...] = UNTOUCHED[0]
        return array

    def copy(self, array):
        """A copy of an array."""
        return self.full(array.shape, array, array.dtype)

    def check(self):
        """Fail if a byte was written."""
        assert all(zone.tobytes() == UNTOUCHED * PAGE for zone in self._zones)


@contextlib.contextmanager
def guarded():
    """A ``with`` block in which all that the package allocates for steps has guards, which are looked at in the end."""
    guards = Guards()
    own = {"zeros": lambda shape, dtype=np.float64: guards.full(shape, 0, dtype), "ones": lambda shape: guards.full(shape, 1)}
    numpy = types.SimpleNamespace(**vars(np) | own | {"full": guards.full, "empty": guards.empty})
    package = [module for name, module in sys.modules.items() if name.startswith("fastopt.")]
    with contextlib.ExitStack() as stack:
        for module in package:
            if hasattr(module, "aligned_zeros"):
                stack.enter_context(mock.patch.object(module, "aligned_zeros", guards.zeros))
        for module in TABLES:
            stack.enter_context(mock.patch.object(module, "np", numpy))
        yield guards
        guards.check()
