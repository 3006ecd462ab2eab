"""Every optimizer in each of its forms, once; and how results are compared, once.

A new optimizer is one row for each of its rules, in a file of ``tests/families``. All tests of numbers run over this table.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.families import MODULES

TABLE = [row for module in MODULES for row in module.ROWS]

# One row for each rule, where the other hyper-parameters would only repeat the test.
RULES = list({row.compiled_rule: row for row in TABLE}.values())

FLOATS = (np.float32, np.float64)

# Where neither sums nor random numbers bind elements together, and how they lie in memory can't matter.
ELEMENTWISE = [row for row in TABLE if row.make(np.zeros(1)).param_groups[0].measure is None and not row.optimizer.elements]

# ASGD computes with the rate itself, once a step.
with_rates = [row for row in TABLE if row.optimizer.takes_rates]

_FORMS = {
    id(row): (len(row.states), row.make(np.zeros(1)).param_groups[0].measure is not None, bool(row.optimizer.elements))
    for row in TABLE
}


def form(row):
    """What tells rows apart for the engine: the number of states, whether something is measured, arrays beside the states."""
    return _FORMS[id(row)]


def singles(least, most):
    """Numbers that float32 has, too: others may become zero there, and are refused."""
    return st.floats(least, most).map(lambda x: float(np.float32(x)))


every_row = pytest.mark.parametrize("row", TABLE, ids=str)
every_rule = pytest.mark.parametrize("row", RULES, ids=lambda row: row.compiled_rule.__name__)
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def with_one_nan(array):
    """A copy in which all NaN have the same bits, also of dtypes that NumPy itself has not."""
    same = np.array(array)
    if (is_nan := np.isnan(same)).any():
        same[is_nan] = np.nan
    return same


def assert_same_bits(actual, expected, what=""):
    """The same shape, dtype and bits, signed zeros included; any NaN equals any other, as IEEE 754 leaves their bits open."""
    assert actual.dtype == expected.dtype, what
    assert actual.shape == expected.shape, what
    bits = f"u{actual.itemsize}"
    canonical = [with_one_nan(array).view(bits) for array in (actual, expected)]
    np.testing.assert_array_equal(*canonical, err_msg=str(what))


def assert_follows(actual, expected, steps):
    """Equal but for rounding, relative to the largest element.

    The tolerance is one machine epsilon of the dtype a step: half of one for storing theta, half for the update, whose own
    roundings are relative to the update, which is smaller. On the paths of these tests errors don't grow otherwise.
    """
    tolerance = steps * np.finfo(actual.dtype).eps * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
