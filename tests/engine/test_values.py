"""What rules choose by comparisons, against NumPy's own functions."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastopt.engine.pairs import Pair
from fastopt.engine.values import at_least, at_most, clipped, select, soft_thresholded
from tests.table import FLOATS, assert_same_bits


@numba.njit
def compiled(x, limit, results):
    for i in range(x.size):
        results[0, i] = at_least(x[i], limit)
        results[1, i] = at_most(x[i], limit)
        results[2, i] = clipped(x[i], -limit, limit)
        results[3, i] = soft_thresholded(x[i], limit)


@given(
    st.sampled_from(FLOATS).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(0, 20))), st.sampled_from([0.0, 0.75, np.inf])
)
def test_they_are_those_of_numpy_and_nan_stays(x, limit):
    limit = x.dtype.type(limit)
    results = np.empty((4, x.size), x.dtype)
    compiled(x, limit, results)
    with np.errstate(invalid="ignore"):  # an infinite number, less an infinite one
        on_arrays = at_least(x, limit), at_most(x, limit), clipped(x, -limit, limit), soft_thresholded(x, limit)
        expected = np.maximum(x, limit), np.minimum(x, limit), np.clip(x, -limit, limit), x - np.clip(x, -limit, limit)
    for own, ours, theirs in zip(results, on_arrays, expected, strict=True):
        assert_same_bits(own, ours)
        np.testing.assert_array_equal(ours, theirs)
    assert not np.signbit(on_arrays[3][on_arrays[3] == 0]).any()  # what is cut off whole leaves the positive zero


def test_parts_of_pairs_are_chosen_one_by_one():
    x = Pair(np.array([-2.0, 0.5, np.nan]), np.array([0.25, 3.0, -3.0]))
    chosen = clipped(x, -1.0, Pair(1.0, 2.0))  # of real limits alone see tests/step/test_moduli.py
    np.testing.assert_array_equal(chosen.x, [-1.0, 0.5, np.nan])
    np.testing.assert_array_equal(chosen.y, [0.25, 2.0, -1.0])
    masked = select(np.array([True, False, True]), (x, chosen), (Pair(0.0, 0.0), 1.0))
    np.testing.assert_array_equal(masked[0].y, [0.25, 0.0, -3.0])
    np.testing.assert_array_equal(masked[1].x, [-1.0, 1.0, np.nan])
    np.testing.assert_array_equal(select(np.array([True, False, False]), x, (Pair(0.0, 4.0), 1.0)).y, [0.25, 4.0, 4.0])
