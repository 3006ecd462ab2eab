"""More than 2^31 elements in one buffer: in 11 GB of memory, so that it runs with ``-m huge`` only."""

import numpy as np
import pytest

import fastopt

SIZE = 2**31 + 1003
OPTIONS = {"lr": 0.1, "momentum": 0.9, "state_dtype": "int8", "rounding": "stochastic", "seed": 3}


def fill(array, values):
    """Repeat values, without a copy of the whole."""
    for begin in range(0, array.size, values.size):
        part = array[begin : begin + values.size]
        part[:] = values[: part.size]


@pytest.mark.huge
def test_elements_beyond_31_bits_step_as_those_of_small_arrays_do():
    values = np.random.default_rng(0).normal(size=2**20 + 7).astype(np.float32)
    theta, g = (np.zeros(SIZE, np.uint16) for _ in range(2))  # the bits of bfloat16
    fill(g, (values.view(np.uint32) >> 16).astype(np.uint16))
    opt = fastopt.SGD(theta, **OPTIONS)
    small = []
    for begin, end in ((0, 1024), (2**30, 2**30 + 1024), (2**31 - 512, 2**31 + 512), (2**31, SIZE)):  # of whole blocks
        part = slice(begin, end)
        alone = fastopt.SGD(theta[part].copy(), **OPTIONS)
        alone.param_groups[0].parameters[0].first = begin  # where its noise is from
        small.append((part, alone))
    for _ in range(2):
        opt.step(g)
        for part, alone in small:
            alone.step(g[part].copy())
    for part, alone in small:
        np.testing.assert_array_equal(theta[part], alone.params)
        np.testing.assert_array_equal(opt.state["p"][part], alone.state["p"])
    assert np.count_nonzero(small[-1][1].params) > 900
