"""Copies of large vectors: every byte and no other, whatever the place, and whether all is finite."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastopt.engine.copies import BLOCK_BYTES, UNIT_BYTES, is_finite
from tests.table import every_dtype

ROOM = UNIT_BYTES  # bytes before and behind a copy

SIZES = st.sampled_from([1, 2, 3, 5, 1000, BLOCK_BYTES // 8 - 1, BLOCK_BYTES // 4, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7])


def room_for(x, offset):
    """Memory with room around it for a copy, and the array in it where the copy goes."""
    memory = np.full(x.nbytes + 2 * ROOM, 7, np.uint8)
    return memory, memory[offset : offset + x.nbytes].view(x.dtype)


@every_dtype
@given(size=SIZES, places=st.tuples(st.integers(0, ROOM), st.integers(0, ROOM)))
def test_copies_write_what_they_should_and_nothing_else(dtype, size, places):
    x = np.random.default_rng(size).normal(size=size).astype(dtype)
    rooms = [room_for(x, place // 4 * 4) for place in places]
    assert is_finite(x, [array for _, array in rooms])
    for memory, array in rooms:
        assert array.tobytes() == x.tobytes()
        array[...] = np.frombuffer(bytes([7] * x.nbytes), dtype)
        assert (memory == 7).all()
    memory, array = room_for(x, 0)
    assert is_finite(x, [array])
    assert array.tobytes() == x.tobytes()


@every_dtype
@given(size=SIZES, where=st.floats(0, 1), wrong=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_element_that_is_not_finite_is_seen_wherever_it_is(dtype, size, where, wrong):
    info = np.finfo(dtype)
    x = np.resize(np.array([info.max, info.min, info.tiny, 0.0, -0.0, info.smallest_subnormal], dtype), size)
    assert is_finite(x)
    x[round(where * (size - 1))] = wrong
    copy = np.empty_like(x)
    assert not is_finite(x)
    assert not is_finite(x, [copy])
    assert copy.tobytes() == x.tobytes()


def test_nothing_is_finite():
    assert is_finite(np.zeros(0))
