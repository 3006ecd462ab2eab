"""Functions for C with arguments of any kind: a status and nothing changed, or the step of a slow oracle and nothing else."""

import ctypes

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import fastopt.capi

SIZE, GUARD = 8, 4
ARRAYS = ("theta", "g", "m", "v")
NUMBERS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "eps_root": 0.0, "scale": 1.0}
NUMBERS |= {"lower": -np.inf, "upper": np.inf}

any_number = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-320, 1e308]))
any_size = st.one_of(st.integers(0, SIZE), st.sampled_from([-1, -(2**63), 2**63 - 1, 2**58, 2**60, 2**61]))
# NULL, or so many bytes from an array: those between are misaligned, those of others overlap.
any_place = st.none() | st.tuples(st.sampled_from(ARRAYS), st.sampled_from([-8, -1, 0, 0, 0, 1, 4, 8, 8 * GUARD]))
changes = st.fixed_dictionaries(
    {},
    optional={"elements": any_size, "t": st.integers(-(2**63), 2**63 - 1)}
    | dict.fromkeys(ARRAYS, any_place)
    | dict.fromkeys(NUMBERS, any_number),
)


def adam():
    made = fastopt.capi.function("adam", "float64")
    assert [*made.arrays, "t", "lr", *made.numbers] == [*ARRAYS, "t", *NUMBERS]
    pointers, numbers = [ctypes.c_void_p] * len(ARRAYS), [ctypes.c_double] * len(NUMBERS)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, *pointers, ctypes.c_int64, *numbers)
    return kind(fastopt.capi.address("adam", "float64"))


def stepped(theta, g, m, v, t, lr, beta1, beta2, eps, eps_root, scale, lower, upper):
    """Kingma & Ba, algorithm 1, with optax's second epsilon, and the new theta brought between the bounds."""
    g = scale * g
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    theta = theta - lr * m_hat / (np.sqrt(v_hat + eps_root) + eps)
    return np.minimum(np.maximum(theta, lower), upper), m, v


@given(changes)
def test_any_arguments(changed):
    rng = np.random.default_rng(0)
    around = {name: rng.uniform(0.5, 1.0, SIZE + 2 * GUARD) for name in ARRAYS}
    before = {name: array.copy() for name, array in around.items()}
    first = {name: array[GUARD:].ctypes.data for name, array in around.items()}
    given_places = {name: changed.get(name, (name, 0)) for name in ARRAYS}
    pointers = {name: place and first[place[0]] + place[1] for name, place in given_places.items()}
    numbers = NUMBERS | {name: changed[name] for name in NUMBERS if name in changed}
    elements, t = changed.get("elements", SIZE), changed.get("t", 3)
    status = adam()(elements, *pointers.values(), t, *numbers.values())
    if status:
        for name, array in around.items():
            np.testing.assert_array_equal(array, before[name])
        return
    # Arguments that pass lie in memory that is ours, but maybe not in the middle of an array.
    flat = {name: (place[0], GUARD + place[1] // 8) for name, place in given_places.items() if place}
    assert elements == 0 or (set(flat) == set(ARRAYS) and all(p % 8 == 0 for p in pointers.values()))
    parts = {name: before[of][begin : begin + elements] for name, (of, begin) in flat.items()}
    if elements:
        with np.errstate(all="ignore"):
            new = stepped(*parts.values(), float(t), *numbers.values())
        is_tame = all(x in (0.0, -np.inf, np.inf) or 1e-50 < abs(x) < 1e50 for x in numbers.values())
        is_tame &= max(numbers["beta1"], numbers["beta2"]) < 0.999  # closer to 1 the oracle cancels
        for name, value in zip(("theta", "m", "v"), new, strict=True):
            of, begin = flat[name]
            if is_tame:  # beyond, the order of operations decides what overflows
                np.testing.assert_allclose(around[of][begin : begin + elements], value, rtol=1e-11)
            before[of][begin : begin + elements] = around[of][begin : begin + elements]
    for name, array in around.items():  # and nothing beside
        np.testing.assert_array_equal(array, before[name])
