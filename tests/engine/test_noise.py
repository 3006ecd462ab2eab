"""Noise: even, the same for the same seed, step and element, and without a relation between elements, steps and arrays."""

import itertools

import numpy as np
import pytest

from fastopt.engine.noise import key_of, noise, product, salt_of

ELEMENTS = np.arange(2**16, dtype=np.uint32)


def bits(seed, step, array=0, elements=ELEMENTS):
    with np.errstate(over="ignore"):
        return product(noise(key_of(np.uint64(seed), np.uint64(step)), elements), salt_of(array))


def assert_even(words):
    """The first eight bits of words are even: chi-squared with 255 degrees of freedom, whose deviation is 22.6."""
    counts = np.bincount(words >> np.uint32(24), minlength=256)
    expected = words.size / 256
    assert 255 - 6 * 22.6 < float((np.square(counts - expected) / expected).sum()) < 255 + 6 * 22.6


def test_it_is_even_over_steps_for_each_element():
    steps = np.concatenate([bits(3, step, elements=ELEMENTS[:16])[None] for step in range(1, 4096)])
    for of_element in steps.T:
        assert_even(of_element)


def assert_unrelated(one, other):
    pair = (one >> np.uint32(28)) << np.uint32(4) | other >> np.uint32(28)
    assert_even(pair << np.uint32(24))
    first, second = (words.astype(np.float64) / 2.0**32 - 0.5 for words in (one, other))
    assert abs(float((first * second).mean())) * 12 < 6 / np.sqrt(one.size)


@pytest.mark.parametrize("seed", [0, 1, -5, 2**62])
def test_neighbours_steps_seeds_and_arrays_have_nothing_to_do_with_each_other(seed):
    seed = np.array(seed).astype(np.uint64)
    words = bits(seed, 7)
    assert_unrelated(words[:-1], words[1:])
    assert_unrelated(words[:-32], words[32:])
    assert_unrelated(words, bits(seed, 8))
    assert_unrelated(words, bits(seed + np.uint64(1), 7))
    for one, other in itertools.combinations(range(4), 2):
        assert_unrelated(bits(seed, 7, one), bits(seed, 7, other))
