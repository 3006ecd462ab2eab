"""Bad input is refused with a message that says what is wrong, before anything changes; unusual good input works."""

from fractions import Fraction

import numba
import numpy as np
import pytest

import fastopt
from tests.refusal import refused

SWAPPED = np.dtype(np.float64).newbyteorder("S")
DTYPES = [np.int64, object, bool, np.clongdouble, np.int16, SWAPPED]
if np.dtype(np.longdouble) != np.float64:
    DTYPES.append(np.longdouble)


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(size):
    return np.frombuffer(bytearray(8 * size + 1), np.float64, size, offset=1)


NO_ARRAYS = [
    pytest.param(bad, TypeError, ("must be a NumPy array", f"got {type(bad).__name__}"), id=type(bad).__name__)
    for bad in (None, 1.0, "weights", np.ma.masked_array(np.ones(3)), {1.0}, memoryview(np.ones(3)))
]
WRONG_DTYPES = [
    pytest.param(np.ones(3, dtype), TypeError, ("must be of float32", f"got {np.dtype(dtype)}"), id=str(np.dtype(dtype)))
    for dtype in DTYPES
]
NOT_IN_PLACE = [
    pytest.param(np.float64(1.0), TypeError, ("must be a NumPy array", "got float64"), id="scalar"),
    pytest.param(read_only(np.ones(3)), ValueError, ("is read-only",), id="read-only"),
    pytest.param(np.broadcast_to(1.0, 3), ValueError, ("must be contiguous", "(0,)"), id="broadcast"),
    pytest.param(unaligned(3), ValueError, ("must be aligned", "float64"), id="unaligned"),
    pytest.param(np.ones(6)[::2], ValueError, ("must be contiguous", "(16,)"), id="strided"),
    pytest.param(np.ones(3)[::-1], ValueError, ("must be contiguous", "(-8,)"), id="backwards"),
    pytest.param(np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,)), ValueError, ("contiguous", "(0,)"), id="stride 0"),
    pytest.param(np.ones((2, 3, 4)).transpose(1, 0, 2), ValueError, ("must be contiguous", "(3, 2, 4)"), id="transposed"),
]


@pytest.mark.parametrize(("bad", "error", "words"), NO_ARRAYS + WRONG_DTYPES + NOT_IN_PLACE)
def test_parameter_is_refused(bad, error, words):
    with refused(error, "params ", *words):
        fastopt.Adam(bad)
    with refused(error, "params['b'][1] ", *words):
        fastopt.Adam({"W": np.ones(3), "b": [np.ones(3), bad]})
    with refused(error, "params[1]['params'][0] ", *words):
        fastopt.Adam([{"params": np.ones(3)}, {"params": [bad]}])


@pytest.mark.parametrize("empty", [[], (), {}, {"W": [], "b": {}}, [{"params": []}, {"params": {}}]], ids=str)
def test_empty_parameters_are_refused(empty):
    with refused(ValueError, "params holds no array"):
        fastopt.SGD(empty)


def test_parameters_that_share_memory_are_refused():
    w = np.ones(8)
    with refused(ValueError, "params['a']", "params['c']", "same array"):
        fastopt.SGD({"a": w, "b": np.ones(8), "c": w})
    with refused(ValueError, "params[0]", "params[1]", "overlap"):
        fastopt.SGD([w, w[7:]])
    with refused(ValueError, "overlap"):
        fastopt.SGD([w[6:], w[1:2], w[:7]])
    with refused(ValueError, "overlap"):
        fastopt.SGD([w.reshape(2, 4), w.view(np.float32)])
    with refused(ValueError, "params[0]['params']", "params[1]['params'][1]", "same array"):
        fastopt.SGD([{"params": w}, {"params": [np.ones(3), w]}])
    flat = fastopt.flatten([np.ones(3), np.ones(4)])
    with refused(ValueError, "overlap"):
        fastopt.SGD([flat, flat[1]])
    memory = bytearray(64)
    with refused(ValueError, "overlap"):
        fastopt.SGD([np.frombuffer(memory, np.float64, 4), np.frombuffer(memory, np.float32, 4, offset=28)])
    fastopt.SGD([w[:4], w[4:]])  # side by side is no overlap


def stepped(cls=fastopt.Adam, **hyper):
    opt = cls({"W": np.ones((2, 3)), "b": [np.ones(3), np.ones(3)]}, **hyper)
    opt.step(gradients())
    return opt


def gradients(last=None):
    return {"W": np.ones((2, 3)), "b": [np.ones(3), np.ones(3) if last is None else last]}


@pytest.mark.parametrize(("bad", "error", "words"), NO_ARRAYS[1:] + WRONG_DTYPES)
def test_last_gradient_is_refused(bad, error, words):
    opt = stepped()
    with refused(error, "grads['b'][1] ", *words, opt=opt):
        opt.step(gradients(bad))
    lone = fastopt.Adam(np.ones(3))
    with refused(error, "grads ", *words, opt=lone):
        lone.step(bad)


@pytest.mark.parametrize(
    ("grads", "error", "words"),
    [
        (3.0, TypeError, ("grads ", "mapping with the keys ['W', 'b']", "float")),
        (np.ones((2, 3)), TypeError, ("grads ", "mapping", "ndarray")),
        ([np.ones((2, 3)), [np.ones(3), np.ones(3)]], TypeError, ("grads ", "mapping", "list")),
        ({}, ValueError, ("grads ", "'W'")),
        ({"W": np.ones((2, 3))}, ValueError, ("grads lacks the key 'b'",)),
        ({**gradients(), "c": np.ones(3)}, ValueError, ("grads has the key 'c'",)),
        ({**gradients(), "b": np.ones((2, 3))}, TypeError, ("grads['b'] ", "list or tuple of length 2", "ndarray")),
        ({**gradients(), "b": {0: np.ones(3), 1: np.ones(3)}}, TypeError, ("grads['b'] ", "list", "dict")),
        ({**gradients(), "b": [np.ones(3)]}, ValueError, ("grads['b'] ", "length 2", "got 1")),
        ({**gradients(), "b": [np.ones(3)] * 3}, ValueError, ("grads['b'] ", "length 2", "got 3")),
        ({**gradients(), "b": [np.ones(3), None]}, TypeError, ("grads['b'][1] ", "NumPy array", "NoneType")),
        (gradients([1.0, 1.0, 1.0]), TypeError, ("grads['b'][1] ", "NumPy array", "list")),
        (gradients(np.ones(4)), ValueError, ("grads['b'][1] ", "shape (3,) of params['b'][1]", "got (4,)")),
        (gradients(np.ones((3, 1))), ValueError, ("grads['b'][1] ", "(3,)", "got (3, 1)")),
        (gradients(np.ones(0)), ValueError, ("grads['b'][1] ", "(3,)", "got (0,)")),
        (gradients(np.ones(())), ValueError, ("grads['b'][1] ", "(3,)", "got ()")),
        (fastopt.flatten(gradients()), TypeError, ("grads ", "mapping", "Flat")),
        (gradients(fastopt.flatten(np.ones(3))), TypeError, ("grads['b'][1] ", "NumPy array", "Flat")),
    ],
)
def test_gradients_of_another_structure_are_refused(grads, error, words):
    opt = stepped()
    with refused(error, *words, opt=opt):
        opt.step(grads)
    opt.step(gradients())
    assert opt.step_count == 2


def overlapping_gradients():
    """Optimizers of one parameter, and gradients in the memory of the parameter or of its state."""
    memory = np.ones(12)
    w = memory[4:8]
    opt = fastopt.Adam(w)
    state = opt.state["m"]
    foreign = np.frombuffer(memoryview(memory), np.float64)[4:8]
    half = np.frombuffer(w.data, np.float32)[:4]
    for g in (w, w[:], w[::-1], memory[1:5], memory[7:11], memory[4::2], foreign, half, state, state[::-1], opt.state["v"]):
        yield opt, g
    owner = np.ones(4)
    opt = fastopt.SGD(owner)
    for g in (owner, owner[:], np.asarray(memoryview(owner))):
        yield opt, g
    view = owner[:]
    yield fastopt.SGD(view), owner
    borrowed = np.frombuffer(memoryview(owner), np.float64)
    yield fastopt.SGD(borrowed), owner
    raw = bytearray(32)
    w = np.frombuffer(raw, np.float64)
    yield fastopt.SGD(w), np.frombuffer(raw, np.float64)


def test_gradient_in_the_memory_of_its_parameter_or_state_is_refused():
    for opt, g in overlapping_gradients():
        opt.step(np.ones(4))
        for _ in range(2):
            with refused(ValueError, "grads overlaps params or its state", opt=opt):
                opt.step(g)


def test_gradient_in_the_memory_of_another_parameter_is_refused():
    # The gradients of sum(x * y) are y and x. The first update would change the second's gradient.
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    opt = fastopt.Adam([x, y])
    with refused(ValueError, "grads[1]", "params[0]", opt=opt):
        opt.step([np.ones(2), x])
    with refused(ValueError, "overlap", opt=opt):
        opt.step([y, x])
    with refused(ValueError, "grads[1]", "params[0]", opt=opt):
        opt.step([np.ones(2), opt.state["m"][0]])


NOT_REAL = [("0.1", TypeError), (None, TypeError), (1j, TypeError), ({1}, TypeError), (True, TypeError), (np.True_, TypeError)]
NOT_REAL += [(np.array(None), TypeError), (np.array("0.1"), TypeError), (np.datetime64(1, "s"), TypeError)]
NOT_NONNEGATIVE = [
    (-1e-9, ValueError),
    (np.nan, ValueError),
    (np.inf, ValueError),
    (-np.inf, ValueError),
    (10**400, ValueError),
]
NOT_DECAY = [(-0.1, ValueError), (1.0, ValueError), (1.5, ValueError), (np.nan, ValueError), (np.inf, ValueError)]
NOT_PAIR = [((0.9,), ValueError), ((0.9, 0.9, 0.9), ValueError), (0.9, TypeError), ("ab", TypeError), (None, TypeError)]
NOT_PAIR += [(np.array(0.9), TypeError), (([0.9, 0.9], 0.9), TypeError), ((0.9, "0.9"), TypeError), ((0.9, None), TypeError)]
NOT_PAIR += [((0.9, bad), error) for bad, error in NOT_DECAY] + [((bad, 0.9), error) for bad, error in NOT_DECAY]
NOT_BOOLEAN = [(1, TypeError), (None, TypeError), ("yes", TypeError), (np.ones(1), TypeError)]
NOT_ACCUMULATION = [("cubes", ValueError), (None, ValueError), (1, ValueError), (["squares"], ValueError)]
NOT_ACCUMULATION += [(np.array(["squares", "rates"]), ValueError)]
BAD_HYPER = [
    pytest.param(cls, key, value, error, id=f"{cls.__name__} {key}={value!r:.16}")
    for cls, key, values in [
        (fastopt.SGD, "lr", NOT_REAL + NOT_NONNEGATIVE),
        (fastopt.SGD, "momentum", NOT_REAL + NOT_NONNEGATIVE),
        (fastopt.SGD, "dampening", [*NOT_REAL, (np.nan, ValueError), (np.inf, ValueError)]),
        (fastopt.SGD, "nesterov", NOT_BOOLEAN),
        (fastopt.AdaGrad, "eps", [*NOT_REAL, *NOT_NONNEGATIVE, ([0.1], TypeError), ([[1], [1, 2]], TypeError)]),
        (fastopt.AdaGrad, "accumulate", NOT_ACCUMULATION),
        (fastopt.RMSProp, "rho", NOT_REAL + NOT_DECAY),
        (fastopt.RMSProp, "accumulate", NOT_ACCUMULATION),
        (fastopt.Adam, "betas", NOT_PAIR),
        (fastopt.Adam, "eps", NOT_NONNEGATIVE),
    ]
    for value, error in values
]


@pytest.mark.parametrize(("cls", "key", "value", "error"), BAD_HYPER)
def test_hyperparameter_is_refused(cls, key, value, error):
    with refused(error, key, " must be "):
        cls(np.ones(3), **{key: value})
    with refused(error, key, " must be "):
        cls([{"params": np.ones(3)}, {"params": np.ones(3), key: value}])
    opt = stepped(cls)
    with refused(error, key, " must be ", opt=opt):
        opt.param_groups[0][key] = value
    if key == "lr":
        with refused(error, "lr must be ", opt=opt):
            opt.lr = value


@pytest.mark.parametrize("hyper", [{}, {"momentum": 0.9, "dampening": 0.1}], ids=str)
def test_nesterov_without_momentum_or_with_dampening_is_refused(hyper):
    with refused(ValueError, "nesterov needs momentum > 0 and dampening = 0", f"dampening={hyper.get('dampening', 0.0)}"):
        fastopt.SGD(np.ones(3), nesterov=True, **hyper)
    opt = stepped(fastopt.SGD, **hyper)
    with refused(ValueError, "nesterov needs momentum > 0 and dampening = 0", opt=opt):
        opt.param_groups[0]["nesterov"] = True


@pytest.mark.parametrize("n", [2.0, "2", None, True, np.True_, np.nan, np.array(2.0), np.array([1, 2])], ids=repr)
def test_number_of_threads_must_be_an_integer(n):
    before = fastopt.get_num_threads()
    with refused(TypeError, "n must be an integer", "got"):
        fastopt.set_num_threads(n)
    assert fastopt.get_num_threads() == before


@pytest.mark.parametrize("n", [0, -1, numba.config.NUMBA_NUM_THREADS + 1, 10**30, np.int64(0)], ids=repr)
def test_number_of_threads_must_be_in_range(n):
    before = fastopt.get_num_threads()
    with refused(ValueError, "n must be between 1 and ", f"got {n}"):
        fastopt.set_num_threads(n)
    assert fastopt.get_num_threads() == before


@pytest.mark.parametrize("dtype", [np.int64, np.float16, SWAPPED, np.complex128], ids=str)
def test_warmup_for_gradients_that_no_step_takes_is_refused(dtype):
    opt = fastopt.SGD(np.ones(3))
    with refused(TypeError, "gradient_dtype", "float32 or float64", str(np.dtype(dtype)), opt=opt):
        fastopt.warmup(opt, gradient_dtype=dtype)


def unusual_arrays():
    """Arrays of two rows and three columns in all ways that memory can hold them."""
    values = np.arange(1.0, 7.0).reshape(2, 3) / 3.0
    yield np.repeat(values.astype(np.float32), 2, axis=1)[:, ::2]
    yield values
    yield np.asfortranarray(values)
    yield read_only(values.copy())
    yield values.astype(np.float32)
    yield values.T.copy().T
    yield np.repeat(values, 2, axis=1)[:, ::2]
    yield values[::-1, ::-1].copy()[::-1, ::-1]
    yield unaligned(6).reshape(2, 3) + values
    odd = unaligned(6).reshape(2, 3)
    odd[...] = values
    yield odd
    yield np.pad(values, 1)[1:-1, 1:-1]
    yield values.view(type("Subclass", (np.ndarray,), {}))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gradients_may_lie_in_memory_as_they_like(order, dtype):
    usual, w = (np.ones((2, 3), dtype, order) for _ in range(2))
    reference, opt = fastopt.Adam(usual), fastopt.Adam(w)
    for g in unusual_arrays():
        before = g.copy()
        for _ in range(2):
            opt.step(g)
            reference.step(np.array(before, order=order))
        np.testing.assert_array_equal(w, usual)
        np.testing.assert_array_equal(g, before)
    row = np.broadcast_to(np.arange(3.0), (2, 3))
    opt.step(row)
    reference.step(np.array(row, order=order))
    np.testing.assert_array_equal(w, usual)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (3, 0, 2), (1, 1, 1), (3, 1), (1, 3), (2, 3, 4)], ids=str)
def test_parameters_of_any_shape(shape):
    for w in (np.ones(shape), np.ones(shape, order="F")):
        opt = fastopt.SGD(w, lr=0.5, momentum=0.9)
        for _ in range(2):
            opt.step(np.full(shape, 2.0))
        np.testing.assert_array_equal(w, np.full(shape, 1.0 - 0.5 * 2.0 - 0.5 * 3.8))
        assert opt.state["p"].shape == shape


def test_gradient_of_a_0d_parameter_may_be_a_scalar():
    w = np.array(3.0)
    fastopt.SGD(w, lr=0.5).step(2.0 * w)  # NumPy gives no array here
    assert w == 0.0


def test_mixed_sizes_with_empty_arrays():
    params = [np.ones(0), np.ones(3), np.ones((2, 0), np.float32)]
    opt = fastopt.Adam(params, lr=0.5, eps=0.0)
    opt.step([np.ones(0), np.ones(3), np.ones((2, 0), np.float32)])
    np.testing.assert_allclose(params[1], 0.5, rtol=1e-12)


def test_parameters_that_are_slices_of_a_larger_array():
    whole = np.ones((4, 3))
    opt = fastopt.SGD([whole[0], whole[1:3]], lr=0.5)
    opt.step([np.ones(3), np.ones((2, 3))])
    np.testing.assert_array_equal(whole, np.array([[0.5], [0.5], [0.5], [1.0]]) * np.ones(3))


def test_parameters_in_a_file(tmp_path):
    w = np.memmap(tmp_path / "w", np.float32, "w+", shape=(2, 3))
    opt = fastopt.SGD({"w": w}, lr=0.5)
    opt.step({"w": np.ones((2, 3), np.float32)})
    opt.step({"w": np.memmap(tmp_path / "g", np.float32, "w+", shape=(2, 3))})
    w.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "w", np.float32), np.full(6, -0.5))


def test_gradients_in_a_tuple_for_parameters_in_a_list():
    params = [np.ones(3), (np.ones(2), np.ones(2))]
    fastopt.SGD(params, lr=0.5).step((np.ones(3), [np.ones(2), np.ones(2)]))
    np.testing.assert_equal(params, [np.full(3, 0.5), (np.full(2, 0.5), np.full(2, 0.5))])


@pytest.mark.parametrize("lr", [1, np.float32(1), np.float16(1), np.int8(1), np.array(1.0), np.array(1), Fraction(1)], ids=repr)
def test_any_real_number_is_a_rate(lr):
    w = np.ones(3)
    opt = fastopt.SGD(w, lr=lr)
    opt.step(np.ones(3))
    np.testing.assert_array_equal(w, np.zeros(3))
    assert type(opt.lr) is float
