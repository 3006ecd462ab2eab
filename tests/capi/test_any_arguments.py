"""Functions for C with arguments of any kind: a status and nothing changed, or the step of a slow oracle and nothing else."""

import ctypes
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt.capi
from fastopt.capi.norms import compiled_norm
from fastopt.engine.formats import decoded, encoded
from tests.table import every_dtype

SIZE, GUARD = 8, 4
NUMBERS = {"lr": 0.1, "scale": 1.0, "lower": -np.inf, "upper": np.inf}
# Within these, in all dtypes, no order of operations overflows. Of bfloat16, rounded up or down, 8 bits are left.
TAME = {np.float64: (1e-50, 1e50, 1e-11), np.float32: (1e-9, 1e9, 1e-4), np.uint16: (1e-9, 1e9, 2.0**-6)}

any_number = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-320, 1e308]))
any_integer = st.integers(-(2**63), 2**63 - 1)
any_size = st.one_of(st.integers(0, SIZE), st.sampled_from([-1, -(2**63), 2**63 - 1, 2**61]))
overlapping_sizes = st.sampled_from([2**56, 2**58, 2**60])  # with which one array alone would be read


def adam(t, theta, g, m, v, lr, beta1, beta2, eps, eps_root):
    """Kingma & Ba, algorithm 1, with optax's second epsilon."""
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return theta - lr * m_hat / (np.sqrt(v_hat + eps_root) + eps), m, v


def momentum(t, theta, g, p, lr, momentum, dampening):
    """As PyTorch has it: the first gradient is not dampened."""
    p = momentum * p + (1.0 if t == 1 else 1 - dampening) * g
    return theta - lr * p, p


ORACLES = {adam: {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "eps_root": 0.0}, momentum: {"momentum": 0.9, "dampening": 0.0}}
CASES = [(adam, np.float32), (adam, np.float64), (adam, np.uint16), (momentum, np.uint16)]


def changes(made):
    """Some of the arguments of a function, of any kind."""
    width = made.dtype.itemsize
    # NULL, or so many bytes from an array: those between are misaligned, those of others overlap.
    offsets = st.sampled_from([-width, -1, 0, 0, 0, 1, width // 2, width, width * GUARD])
    any_place = st.none() | st.tuples(st.sampled_from(made.arrays), offsets)
    optional = {"elements": any_size | overlapping_sizes, "t": any_integer, "seed": any_integer}
    optional |= dict.fromkeys(made.arrays, any_place) | dict.fromkeys(["lr", *made.numbers], any_number)
    return st.fixed_dictionaries({}, optional=optional)


def called(name, made, elements, pointers, t, numbers, seed):
    """The status of a call; functions of 16 bits take a seed."""
    kinds = [ctypes.c_int64, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64, *[ctypes.c_double] * len(numbers)]
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *kinds, *[ctypes.c_int64] * made.is_narrow)
    return kind(fastopt.capi.address(name, made.dtype))(elements, *pointers, t, *numbers, *[seed] * made.is_narrow)


@pytest.mark.parametrize(("oracle", "dtype"), CASES)
@given(data=st.data())
def test_any_arguments(oracle, dtype, data):
    made = fastopt.capi.function(oracle.__name__, dtype)
    changed, width, rng = data.draw(changes(made)), made.dtype.itemsize, np.random.default_rng(0)
    around = {name: encoded(rng.uniform(0.5, 1.0, SIZE + 2 * GUARD).astype(np.float32), made.dtype) for name in made.arrays}
    before = {name: array.copy() for name, array in around.items()}
    first = {name: array[GUARD:].ctypes.data for name, array in around.items()}
    places = {name: changed.get(name, (name, 0)) for name in made.arrays}
    pointers = [place and first[place[0]] + place[1] for place in places.values()]
    numbers = NUMBERS | ORACLES[oracle] | {name: changed[name] for name in changed.keys() & {"lr", *made.numbers}}
    elements, t = changed.get("elements", SIZE), changed.get("t", 3)
    own = [numbers[name] for name in ("lr", *made.numbers)]
    status = called(oracle.__name__, made, elements, pointers, t, own, changed.get("seed", 0))
    if not status:
        # Arguments that pass lie in memory that is ours, but maybe not in the middle of an array.
        flat = {name: (place[0], GUARD + place[1] // width) for name, place in places.items() if place}
        assert elements == 0 or (set(flat) == set(made.arrays) and all(p % width == 0 for p in pointers))
        parts = {name: slice(begin, begin + elements) for name, (_, begin) in flat.items()}
        if elements:
            given_arrays = {name: decoded(before[of][parts[name]]).astype(float) for name, (of, _) in flat.items()}
            given_arrays["g"] *= numbers["scale"]
            with np.errstate(all="ignore"):
                theta, *states = oracle(float(t), **given_arrays, **{n: numbers[n] for n in ("lr", *ORACLES[oracle])})
                theta = np.minimum(np.maximum(theta, numbers["lower"]), numbers["upper"])
        least, most, tolerance = TAME[dtype]
        is_tame = all(x in (0.0, -np.inf, np.inf) or least < abs(x) < most for x in numbers.values())
        # Closer to 1 the oracle cancels.
        is_tame &= all(numbers[name] < 0.999 for name in ("beta1", "beta2") if name in numbers)
        for i, name in enumerate(name for name in flat if name != "g" and elements):
            of, part = flat[name][0], parts[name]
            if is_tame:
                np.testing.assert_allclose(decoded(around[of][part]), [theta, *states][i], rtol=tolerance)
            before[of][part] = around[of][part]
    for name, array in around.items():  # and nothing beside, or nothing at all
        np.testing.assert_array_equal(array, before[name])


@every_dtype
@given(
    elements=any_size,
    numbers=st.lists(st.floats(width=32), min_size=SIZE, max_size=SIZE),
    where=st.none() | st.sampled_from([0, 1, 4, 8]),
    result=st.none() | st.sampled_from([0, 0, 4, 8, -8]),
)
def test_norms_of_anything(dtype, elements, numbers, where, result):
    g, found = np.full(SIZE + 2 * GUARD, 3.0, dtype), np.full(3, 7.0)
    g[GUARD : GUARD + SIZE] = numbers
    before = g.copy()
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    begins = g[GUARD:].ctypes.data, found[1:].ctypes.data
    pointers = [None if at is None else begin + at for begin, at in zip(begins, (where, result), strict=True)]
    status = kind(compiled_norm(np.dtype(dtype)).address)(elements, *pointers)
    expected = np.full(3, 7.0)
    if not status:
        assert 0 <= elements <= SIZE
        assert pointers[1] % 8 == 0
        assert elements == 0 or pointers[0] % g.itemsize == 0
        begin = GUARD + (where or 0) // g.itemsize
        taken = g[begin : begin + elements].astype(float)
        expected[1 + result // 8] = math.nan if np.isnan(taken).any() else math.hypot(*taken)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_array_equal(g, before)
