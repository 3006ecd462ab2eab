"""16-bit numbers: read and rounded as NumPy and ml_dtypes do and as definitions say; stochastic rounding without bias."""

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastopt.engine.formats import FORMATS, converted_to, decoded, encoded, plain
from fastopt.engine.rounding import (
    from_bfloat16,
    from_float16,
    joined,
    lower_half,
    to_bfloat16,
    to_bfloat16_stochastic,
    to_float16,
    to_float16_stochastic,
    upper_half,
)
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
        out = np.zeros(given.size, np.uint16)
        compiled_float16(given, out)
        assert_same(out, expected, np.isnan(expected))
        assert_same(encoded(given, np.dtype(np.float16)), expected, np.isnan(expected))
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


PATTERNS = np.arange(2**16, dtype=np.uint16)
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
DECODE = {"bfloat16": from_bfloat16, "float16": from_float16}
STOCHASTIC = {"bfloat16": to_bfloat16_stochastic, "float16": to_float16_stochastic}
every_format = pytest.mark.parametrize("name", DTYPES)


@every_format
def test_all_patterns_are_read_as_the_packages_read_them(name):
    decode = DECODE[name]

    @numba.njit(error_model="numpy")
    def compiled(bits, out):
        for i in range(bits.size):
            out[i] = decode(bits[i])

    out = np.zeros(PATTERNS.size, np.float32)
    compiled(PATTERNS, out)
    expected = PATTERNS.view(DTYPES[name]).astype(np.float32)
    for read in (out, decoded(PATTERNS.view(DTYPES[name]))):
        np.testing.assert_array_equal(np.isnan(read), np.isnan(expected))
        np.testing.assert_array_equal(read[~np.isnan(read)].view(np.uint32), expected[~np.isnan(expected)].view(np.uint32))
    # What is read is written back as it was, as masks ask for.
    back = encoded(expected, DTYPES[name]).view(np.uint16)
    np.testing.assert_array_equal(back[~np.isnan(expected)], PATTERNS[~np.isnan(expected)])


def test_bfloat16_is_rounded_as_ml_dtypes_does():
    given = values(np.float32, (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32))
    expected = given.astype(ml_dtypes.bfloat16)
    assert_same(encoded(given, np.dtype(np.uint16)), expected, np.isnan(given))


def neighbours(name, x):
    """The numbers of a format that are next to x below and above it, in the direction away from zero; x itself if it is one."""
    finite = decoded(PATTERNS[PATTERNS < 0x8000].view(DTYPES[name]))
    finite = np.append(finite[np.isfinite(finite)].astype(np.float64), np.inf)
    above = np.searchsorted(finite, np.abs(x), side="left")
    below = np.where(finite[above] == np.abs(x), above, above - 1)
    return np.copysign(finite[below], x), np.copysign(finite[above], x)


def chosen_values(name):
    exponents = {"bfloat16": np.arange(-140, 128), "float16": np.arange(-32, 16)}[name]
    fractions = 1.0 + RNG.random((4, exponents.size))
    with np.errstate(under="ignore"):
        return np.concatenate([np.ldexp(sign * fractions, exponents).ravel() for sign in (1, -1)]).astype(np.float32)


@every_format
def test_stochastic_rounding_has_no_bias(name):
    """Over all noise there is, or an even choice of it, the mean is the number itself."""
    x, noise = chosen_values(name), (np.arange(2**16, dtype=np.uint32) << 16) | np.uint32(0x8000)
    top = {"bfloat16": float(ml_dtypes.finfo(ml_dtypes.bfloat16).max), "float16": 65504.0}[name]
    x = x[np.abs(x) < top]
    mean = np.array([decoded(STOCHASTIC[name](each[None], noise).view(DTYPES[name])).astype(np.float64).mean() for each in x])
    below, above = neighbours(name, x)
    width = np.abs(above - below)
    assert np.all(np.abs(mean - x.astype(np.float64)) <= width * 2.0**-15)


@every_format
def test_stochastic_rounding_gives_one_of_both_neighbours(name):
    x = np.concatenate([chosen_values(name), PATTERNS.view(DTYPES[name]).astype(np.float32)])
    x = x[np.isfinite(x)]
    below, above = neighbours(name, x)
    for _ in range(10):
        noise = RNG.integers(0, 2**32, x.size, dtype=np.uint32)
        rounded = decoded(STOCHASTIC[name](x, noise).view(DTYPES[name])).astype(np.float64)
        assert np.all((rounded == below) | (rounded == above))
        np.testing.assert_array_equal(np.signbit(rounded), np.signbit(x))


@every_format
def test_stochastic_rounding_keeps_what_is_not_finite(name):
    special = np.array([np.inf, -np.inf, np.nan, 1e30 if name == "float16" else np.inf], np.float32)
    nan = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    for noise in (0, 2**31, 2**32 - 1):
        with np.errstate(invalid="ignore"):
            kept = decoded(STOCHASTIC[name](special, np.full(4, noise, np.uint32)).view(DTYPES[name]))
            assert np.isnan(decoded(STOCHASTIC[name](nan, np.full(3, noise, np.uint32)).view(DTYPES[name]))).all()
            assert np.isnan(decoded(encoded(nan, DTYPES[name]))).all()
        np.testing.assert_array_equal(kept, [np.inf, -np.inf, np.nan, np.inf])


@given(arrays.arrays(np.uint32, 50, elements=st.integers(0, 2**32 - 1)))
def test_both_halves_of_a_number_are_the_number(bits):
    x = bits.view(np.float32)
    high, low = upper_half(x), lower_half(x)
    kept = joined(high, low)
    is_nan = np.isnan(x)
    np.testing.assert_array_equal(kept[~is_nan].view(np.uint32), bits[~is_nan])
    assert np.isnan(kept[is_nan]).all()
    np.testing.assert_array_equal(low, low.astype(np.int16))
    # The upper half is a bfloat16, and no other is nearer.
    np.testing.assert_array_equal(decoded(encoded(high, np.dtype(np.uint16)))[~is_nan], high[~is_nan])
    nearest = decoded(encoded(x, np.dtype(np.uint16))).astype(np.float64)
    with np.errstate(invalid="ignore"):
        assert np.all((np.abs(high - x.astype(np.float64)) <= np.abs(nearest - x)) | ~np.isfinite(nearest) | is_nan)


@pytest.mark.parametrize("dtype", [np.float16, np.uint16, np.float32, np.float64])
def test_complex_numbers_are_converted_part_by_part(dtype):
    z = (RNG.normal(size=(3, 2)) + 1j * RNG.normal(size=(3, 2))).astype(np.complex64)
    there = np.dtype([("real", dtype), ("imag", dtype)]) if np.dtype(dtype) in FORMATS else np.result_type(dtype, np.complex64)
    low = converted_to(there, z)
    back = converted_to(z.dtype, low)
    np.testing.assert_array_equal(back.real, decoded(encoded(np.ascontiguousarray(z.real), np.dtype(dtype))))
    np.testing.assert_array_equal(back.imag, decoded(encoded(np.ascontiguousarray(z.imag), np.dtype(dtype))))
    assert plain(there) == there
