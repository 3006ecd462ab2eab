"""Numbers of 8 bits with a power of two for each block: how near they are, and that nothing is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastopt.engine.codes import (
    NONNEGATIVE,
    SIGNED,
    SIZE,
    code_of,
    decoded_from_blocks,
    encoded_in_blocks,
    factor_of,
    inverse_of,
    number_of,
)
from fastopt.engine.noise import key_of, noise

every_code = pytest.mark.parametrize("code", [SIGNED, NONNEGATIVE], ids=["signed", "nonnegative"])
numbers = st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=3 * SIZE)


def codes_in_order(code):
    least = -127 if code is SIGNED else 0
    return np.arange(least, 128 if code is SIGNED else 256).astype(code.dtype)


@every_code
def test_codes_stand_for_numbers_in_their_order_and_come_back(code):
    codes, one = codes_in_order(code), np.uint16(0x3F80)
    values = number_of(codes, factor_of(one))
    assert np.all(np.diff(values) > 0)
    np.testing.assert_array_equal(values[codes == 0], 0)
    if code is SIGNED:
        np.testing.assert_array_equal(values, -values[::-1])
    back = codes[codes != 0]  # which of others stands for zero in a block of zeros only
    for bits in (None, np.uint32(0), np.uint32(2**32 - 1)):
        np.testing.assert_array_equal(code_of(values[codes != 0], inverse_of(one), bits, code), back)


@every_code
@given(given=numbers)
def test_numbers_are_off_by_half_a_step_at_most(code, given):
    x = np.array(given, np.float32)
    x = x if code is SIGNED else np.abs(x)
    codes, scales = encoded_in_blocks(x, np.dtype(code.dtype))
    scale = np.repeat(factor_of(scales), SIZE)[: x.size].astype(np.float64)
    found = decoded_from_blocks(codes, scales).astype(np.float64)
    step = (np.abs(x) + 2 * scale) / 2.0 ** (23 - int(code.dropped))
    least = 2 * scale / 16 if code is NONNEGATIVE else 0  # nothing becomes zero
    assert np.all(np.abs(found - x) <= np.maximum(step / 2 * (1 + 1e-6), least))
    assert np.all(np.sign(found) * np.sign(x) >= 0)
    if code is NONNEGATIVE:
        assert np.all(found[x > 0] > 0)


@every_code
def test_a_scale_is_the_least_for_the_largest_number(code):
    last = number_of(codes_in_order(code)[-1:], np.float32(1))[0]
    x = np.zeros(3 * SIZE, np.float32)
    x[[0, SIZE, 2 * SIZE]] = last, np.nextafter(last, np.float32(np.inf)), 0
    codes, scales = encoded_in_blocks(x, np.dtype(code.dtype))
    np.testing.assert_array_equal(factor_of(scales), np.float32([1, 2, 0]))
    assert codes[0] == codes_in_order(code)[-1]
    np.testing.assert_array_equal(decoded_from_blocks(codes, scales)[2 * SIZE :], 0)


@every_code
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_makes_its_block_nan(code, bad):
    x = np.ones(2 * SIZE, np.float32)
    x[5] = bad
    found = decoded_from_blocks(*encoded_in_blocks(x, np.dtype(code.dtype)))
    assert np.isnan(found[:SIZE]).all()
    np.testing.assert_allclose(found[SIZE:], 1, rtol=1e-4)


@every_code
def test_stochastic_rounding_is_right_on_average(code):
    x = np.abs(np.random.default_rng(0).normal(size=4096).astype(np.float32)) + np.float32(0.01)
    scale = encoded_in_blocks(x, np.dtype(code.dtype))[1]
    factor, inverse = (np.repeat(of(scale), SIZE) for of in (factor_of, inverse_of))
    places, steps = np.arange(x.size, dtype=np.uint32), 400
    total = np.zeros(x.size)
    with np.errstate(over="ignore"):
        for step in range(steps):
            total += number_of(code_of(x, inverse, noise(key_of(np.uint64(1), np.uint64(step)), places), code), factor)
    spread = (x + 2 * factor) / 2.0 ** (23 - int(code.dropped))
    off = (total / steps - x) / (spread / np.sqrt(steps))
    assert abs(off.mean()) < 4 / np.sqrt(x.size)
    assert np.abs(off).max() < 4
