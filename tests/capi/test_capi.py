"""The C interface: its functions take the same steps as Python does, to the last bit."""

import ctypes
import threading

import numpy as np
import pytest

import fastopt.capi
from fastopt.capi import COMMON, FUNCTIONS, STATUS
from fastopt.capi.formulas import Branch, traced
from fastopt.capi.norms import compiled_norm
from fastopt.description.hyperparameters import checked
from fastopt.engine.formats import encoded
from tests import fresh
from tests.refusal import refused
from tests.table import assert_same_bits, every_dtype

STEPS = 7


def caller(name, dtype):
    """The function, to be called with arrays."""
    made = fastopt.capi.function(name, dtype)
    arrays, numbers = [ctypes.c_void_p] * len(made.arrays), [ctypes.c_double] * (1 + len(made.numbers))
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, *arrays, ctypes.c_int64, *numbers)
    return made, kind(fastopt.capi.address(name, dtype))


@pytest.mark.wide
@every_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_bits_of_steps(name, dtype):
    made, function = caller(name, dtype)
    theta = np.linspace(-1.0, 1.0, 1003).astype(dtype)
    states = [np.full(1003, value, dtype) for value in made.states.values()]
    cls, arguments = FUNCTIONS[name]
    opt = cls(theta.copy(), lr=0.01, **arguments)
    for t in range(1, STEPS + 1):
        g = np.sin(3 * t * theta).astype(dtype)
        pointers = [array.ctypes.data for array in (theta, g, *states)]
        assert function(1003, *pointers, t, 0.01, *made.numbers.values()) == 0
        opt.step(g)
        assert_same_bits(theta, opt.params)
    for state, key in zip(states, made.states, strict=True):
        assert_same_bits(state, opt.state[key], key)


def test_functions_are_found_in_the_cache_by_a_later_process(tmp_path):
    script = """
import fastopt.capi
from fastopt.capi import _compiled
fastopt.capi.address("sgd", "uint16")
report(hits=_compiled("sgd", np.dtype(np.uint16)).cache_hits)
"""
    env = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert [fresh.run(script, tmp_path, **env)["hits"] for _ in range(2)] == [0, 1]


def test_a_fork_waits_for_functions_that_another_thread_compiles(tmp_path):
    script = """
import signal
import fastopt.capi
begun, source = threading.Event(), fastopt.capi._source
def slow(made):
    begun.set()
    threading.Event().wait(0.3)
    return source(made)
fastopt.capi._source = slow
thread = threading.Thread(target=fastopt.capi.address, args=("sgd", "float32"))
thread.start()
begun.wait()
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this test is about
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    fastopt.capi.address("sgd", "float32")
    os._exit(0)
thread.join()
report(status=os.waitpid(pid, 0)[1])
"""
    assert fresh.run(script, tmp_path) == {"status": 0}


def status(function, made, changes):
    """The status after some changes to good arguments, and whether anything was written."""
    arrays = {name: np.ones(9) for name in made.arrays}
    arguments = {"elements": 8} | {name: array.ctypes.data for name, array in arrays.items()} | {"t": 1, "lr": 0.1}
    arguments |= made.numbers
    arguments |= {key: value(arguments) if callable(value) else value for key, value in changes.items()}
    result = function(*arguments.values())
    return result, all((array == 1).all() for array in arrays.values())


BAD = [
    ({"elements": -1}, "FASTOPT_BAD_SIZE"),
    ({"elements": -(2**63)}, "FASTOPT_BAD_SIZE"),
    ({"elements": 2**58}, "FASTOPT_BAD_SIZE"),
    ({"elements": 2**60}, "FASTOPT_BAD_SIZE"),
    ({"elements": 2**61}, "FASTOPT_BAD_SIZE"),
    ({"elements": 2**57}, "FASTOPT_OVERLAP"),
    ({"theta": None}, "FASTOPT_NULL"),
    ({"g": None}, "FASTOPT_NULL"),
    ({"v": None}, "FASTOPT_NULL"),
    ({"m": lambda a: a["m"] + 1}, "FASTOPT_MISALIGNED"),
    ({"g": lambda a: a["theta"]}, "FASTOPT_OVERLAP"),
    ({"v": lambda a: a["m"] + 8}, "FASTOPT_OVERLAP"),
    ({"t": 0}, "FASTOPT_BAD_NUMBER"),
    ({"lr": np.nan}, "FASTOPT_BAD_NUMBER"),
    ({"beta2": np.inf}, "FASTOPT_BAD_NUMBER"),
]


@pytest.mark.parametrize(("changes", "name"), BAD, ids=[f"{name}-{i}" for i, (_, name) in enumerate(BAD)])
def test_bad_arguments_give_a_status_and_change_nothing(changes, name):
    made, function = caller("adam", np.float64)
    assert status(function, made, changes) == (STATUS[name][0], True)


def allowed(name, key, value):
    """Whether Python takes a number."""
    cls, arguments = FUNCTIONS[name]
    defaults = cls(np.zeros(1), **arguments).param_groups[0]
    own = key
    if key not in defaults:  # one of several
        own, index = f"{key[:-1]}s", int(key[-1]) - 1
        value = (*defaults[own][:index], value, *defaults[own][index + 1 :])
    try:
        checked(cls.checks, own, value)
    except ValueError:
        return False
    return True


NUMBERS = (0.0, -1e-9, -0.5, 0.5, 1.0, 1.5, 1e30, np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_that_python_refuses_give_a_status(name):
    made, function = caller(name, np.float64)
    for key in ("lr", *(made.numbers.keys() - COMMON.keys())):
        answers = {value: status(function, made, {key: value}) for value in NUMBERS}
        expected = {value: 0 if allowed(name, key, value) else 5 for value in NUMBERS}
        assert {value: answer for value, (answer, _) in answers.items()} == expected, key
        assert all(unchanged for answer, unchanged in answers.values() if answer)
        assert set(expected.values()) == {0, 5}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_gradients_are_scaled_and_steps_end_between_bounds(name):
    made, function = caller(name, np.float32)
    theta, g = np.linspace(-1.0, 1.0, 1003).astype(np.float32), np.linspace(3.0, -2.0, 1003).astype(np.float32)
    states = [np.zeros(1003, np.float32) for _ in made.states]
    opt = FUNCTIONS[name][0](theta.copy(), lr=0.25, bounds=(-0.5, 0.75))
    for t in (1, 2):
        numbers = made.numbers | {"scale": 0.125, "lower": -0.5, "upper": 0.75}
        assert function(1003, *(a.ctypes.data for a in (theta, g, *states)), t, 0.25, *numbers.values()) == 0
        opt.step(g, scale=0.125)
        assert_same_bits(theta, opt.params)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scale": np.nan}, 5),
        ({"scale": np.inf}, 5),
        ({"scale": -0.5}, 0),
        ({"lower": np.nan}, 5),
        ({"upper": np.nan}, 5),
        ({"lower": 2.0, "upper": 1.0}, 5),
        ({"lower": 1.0, "upper": 1.0}, 0),
    ],
)
def test_scales_and_bounds_that_are_not_allowed_give_a_status(changes, expected):
    made, function = caller("sgd", np.float64)
    assert status(function, made, changes)[0] == expected


NORMED = {
    "some": lambda dtype: np.random.default_rng(0).standard_normal(1003).astype(dtype),
    "small": lambda dtype: np.full(7, np.finfo(dtype).tiny, dtype),
    "large": lambda dtype: np.full(6, np.finfo(dtype).max / 4, dtype),
    "zeros": lambda dtype: np.zeros(5, dtype),
    "nothing": lambda dtype: np.zeros(0, dtype),
    "NaN": lambda dtype: np.array([1e300, np.nan, 1.0], np.float64).astype(dtype),
    "infinite": lambda dtype: np.array([1.0, -np.inf, 1.0], dtype),
}


@every_dtype
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("make", NORMED.values(), ids=NORMED)
def test_norms(make, dtype):
    g, found = make(dtype), np.full(1, 7.0)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    norm = kind(compiled_norm(np.dtype(dtype)).address)
    assert norm(g.size, g.ctypes.data, found.ctypes.data) == 0
    expected = fastopt.SGD(np.zeros_like(g)).norm(g) if g.size else 0.0
    np.testing.assert_allclose(found[0], expected, rtol=1e-14)
    for arguments, wrong in [((-1, 8, 8), 1), ((1, None, found.ctypes.data), 2), ((1, g.ctypes.data, None), 2)]:
        assert norm(*arguments) == wrong
    assert norm(1, 16, found.ctypes.data + 1) == 3


def test_numbers_that_vanish_or_overflow_in_the_dtype_of_the_arrays_give_a_status():
    for name, key, value in (
        ("adam", "eps", 1e-46),
        ("adam", "lr", 1e-60),
        ("sgd", "lr", 1e39),
        ("adamw", "weight_decay", 1e300),
    ):
        made, function = caller(name, np.float32)
        assert status(function, made, {key: value}) == (5, True)
        made, function = caller(name, np.float64)
        assert status(function, made, {key: value})[0] == 0


def test_nothing_is_stepped_where_there_is_nothing():
    made, function = caller("adam", np.float64)
    assert status(function, made, {"elements": 0, "theta": None, "g": None, "m": None, "v": None}) == (0, True)
    assert status(function, made, {}) == (0, False)


def test_threads_step_parts_of_the_same_arrays():
    _, function = caller("sgd", np.float64)
    theta, g = np.zeros(1000), np.arange(1000.0)
    starts = range(0, 1000, 100)
    threads = [
        threading.Thread(target=function, args=(100, theta[lo:].ctypes.data, g[lo:].ctypes.data, 1, 1.0, *COMMON.values()))
        for lo in starts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(theta, -g)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("nosuch",), ValueError, "name must be one of adabelief, "),
        ((None,), ValueError, "got None"),
        (("adagrad", "float16"), TypeError, "dtype must be float32 or float64"),
        (("adam", "int8"), TypeError, "dtype must be float32, float64, float16 or bfloat16"),
    ],
)
def test_unknown_functions_are_refused(arguments, error, words):
    with refused(error, words):
        fastopt.capi.address(*arguments)


@pytest.mark.parametrize(("name", "dtype"), [("adam", np.float16), ("momentum", np.uint16), ("sgd", np.uint16)])
def test_arrays_of_16_bits_are_rounded_as_in_python(name, dtype):
    cls, arguments = FUNCTIONS[name]
    made, n = fastopt.capi.function(name, dtype), 1003
    theta, g = (encoded(np.random.default_rng(i).normal(size=n).astype(np.float32), np.dtype(dtype)) for i in range(2))
    mine, states = theta.copy(), {state: np.zeros(n, dtype) for state in made.states}
    form = "float16" if dtype is np.float16 else "bfloat16"
    opt = cls(theta, lr=0.125, **arguments, state_dtype=form, rounding="stochastic", seed=5)
    kinds = [ctypes.c_int64, *[ctypes.c_void_p] * len(made.arrays), ctypes.c_int64]
    kinds += [ctypes.c_double] * (1 + len(made.numbers)) + [ctypes.c_int64]
    step = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(fastopt.capi.address(name, dtype))
    for t in range(1, 4):
        opt.step(g)
        arrays = [a.ctypes.data for a in (mine, g, *states.values())]
        assert step(n, *arrays, t, 0.125, *made.numbers.values(), 5) == 0
    np.testing.assert_array_equal(mine.view(np.uint16), theta.view(np.uint16))
    for state, array in states.items():
        np.testing.assert_array_equal(array.view(np.uint16), opt.state[state].view(np.uint16))


def test_formulas_are_traced_with_all_their_branches():
    def function(hyper, t):
        limit = max(1.0, t - hyper["start"])
        return (hyper["beta"] ** t, -1.0 if t > 3 and hyper["nesterov"] else 1 / limit)

    tree = traced(function, {"beta": "beta", "start": "start", "nesterov": True}, "t", numbers=["beta", "start", "t"])
    for beta, start, t in [(0.5, 0.0, 1), (0.5, 5.0, 2), (0.25, 0.0, 3), (0.25, 1.0, 4)]:
        numbers = {"beta": beta, "start": start, "t": float(t), "math": __import__("math")}
        way = tree
        while isinstance(way, Branch):
            way = way.if_true if eval(way.condition, numbers) else way.if_false
        assert tuple(eval(x, numbers) for x in way) == function({"beta": beta, "start": start, "nesterov": True}, t)


@pytest.mark.parametrize("function", [lambda t: ("x", t), lambda t: (float(t),)])
def test_what_is_no_formula_is_refused(function):
    with pytest.raises(TypeError):
        traced(function, "t", numbers=["t"])
