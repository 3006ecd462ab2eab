"""16-bit numbers: rounded as NumPy rounds to float16, and as the definition of bfloat16 says, from both dtypes."""

import numba
import numpy as np
import pytest

from fastopt.engine.formats import encoded, to_bfloat16, to_float16
from tests.table import FLOATS, every_dtype

RNG = np.random.default_rng(0)


@numba.njit(error_model="numpy")
def compiled_float16(values, out):
    for i in range(values.size):
        out[i] = to_float16(values[i])


@numba.njit(error_model="numpy")
def compiled_bfloat16(values, out):
    for i in range(values.size):
        out[i] = to_bfloat16(values[i])


def with_neighbours(values):
    """The numbers, those next to them, and those in the middle between two of them: where rounding could go wrong."""
    finite = np.unique(values[np.isfinite(values)].astype(np.float64))
    middle = (finite[:-1] + finite[1:]) / 2
    return np.concatenate([np.nextafter(x, to) for x in (finite, middle) for to in (x, -np.inf, np.inf)])


def values(dtype, sixteen):
    with np.errstate(all="ignore"):
        others = np.array([np.inf, -np.inf, 65519.99, 65520.0, 1e300, -1e-300, 5e-324, 0.0, -0.0, np.nan])
        bits = RNG.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32).astype(np.float64)
        return np.concatenate([with_neighbours(sixteen), others, bits]).astype(dtype)


def assert_same(actual, expected, is_nan):
    np.testing.assert_array_equal(actual[~is_nan].view(np.uint16), expected[~is_nan].view(np.uint16))


@every_dtype
def test_float16_is_that_of_numpy(dtype):
    given = values(dtype, np.arange(2**16, dtype=np.uint16).view(np.float16))
    with np.errstate(all="ignore"):
        expected = given.astype(np.float16)
        out = np.zeros(given.size, np.int16)
        compiled_float16(given, out)
        assert_same(out, expected, np.isnan(expected))
        assert_same(encoded(given, np.dtype(np.int16)), expected, np.isnan(expected))
    assert np.isnan(out.view(np.float16)[np.isnan(given)]).all()


def nearest_bfloat16(given):
    """The definition: of all bfloat16 the one that is nearest, of two the even one."""
    table = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
    table = np.append(table, 2.0**128)  # infinity, as far as rounding is concerned
    x = np.abs(given.astype(np.float64))
    x[np.isinf(x)] = 2.0**128
    above = np.clip(np.searchsorted(table, x), 1, table.size - 1)
    low, high = table[above - 1], table[above]
    with np.errstate(invalid="ignore"):
        takes_above = (x - low > high - x) | ((x - low == high - x) & (above % 2 == 0))
    bits = np.where(takes_above, above, above - 1).astype(np.uint16)
    return bits | np.where(np.signbit(given), 0x8000, 0).astype(np.uint16)


@every_dtype
def test_bfloat16_is_the_nearest(dtype):
    given = values(dtype, (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32))
    is_nan = np.isnan(given)
    expected = nearest_bfloat16(np.where(is_nan, 0.0, given))
    out = np.zeros(given.size, np.uint16)
    with np.errstate(all="ignore"):
        compiled_bfloat16(given, out)
        assert_same(out, expected, is_nan)
        assert_same(encoded(given, np.dtype(np.uint16)), expected, is_nan)
    assert np.isnan((out[is_nan].astype(np.uint32) << 16).view(np.float32)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("to", FLOATS)
def test_other_dtypes_are_cast(dtype, to):
    given = RNG.normal(size=10).astype(dtype)
    np.testing.assert_array_equal(encoded(given, np.dtype(to)), given.astype(to))
