"""States of 8 bits: the rule in float32 between decoding and encoding, with blocks of their own for each tensor."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import fastopt
from fastopt.arrays.codes import Codes, read, with_scales, write
from fastopt.engine.codes import CODES, SIZE, code_of, encoded_in_blocks, inverse_of, scale_of
from fastopt.engine.noise import key_of, noise, product, salt_of
from fastopt.engine.rounding import MAGNITUDE, bits_of
from tests.refusal import refused
from tests.row import next_numbers
from tests.table import every_rule, form

STOCHASTIC = {"state_dtype": "int8", "rounding": "stochastic", "seed": 3}
SHAPES = [(70, 50), (3,), (), (40_000,)]
PARTS = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(SHAPES)]


def gradient(step, size, dtype=np.float32):
    return np.random.default_rng(step).normal(size=size).astype(dtype) + dtype(0.5)


def encoded(x, like, bits):
    """Codes of a vector with the scales of its blocks, as a step should give them."""
    code = CODES[like.dtype]
    if bits is None:
        return encoded_in_blocks(x, like.dtype)
    padded = np.zeros(-(-x.size // SIZE) * SIZE, np.float32)
    padded[: x.size] = x
    largest = (bits_of(padded) & MAGNITUDE).reshape(-1, SIZE).max(axis=1)
    scales = scale_of(largest, code.exponent, code.to_next)
    return code_of(x, np.repeat(inverse_of(scales), SIZE)[: x.size], bits, code), scales


def check_step(opt, g, seed=None):
    """Step, and compare with the rule on NumPy arrays."""
    (group,) = opt.param_groups
    (p,) = group.parameters
    arrays, number = group.arrays(p), p.dtype.type
    with np.errstate(all="ignore"):
        numbers = [n if isinstance(n, np.ndarray) else number(n) for n in next_numbers(opt, g)]
        theta, *states = [read(a).astype(p.dtype) for a in arrays]
        new = group.rule(theta, g.astype(p.dtype), numbers[0], *states, *numbers[1:])
        new = new if isinstance(new, tuple) else (new,)
        expected = []
        for i, (x, a) in enumerate(zip(new, arrays, strict=True)):
            bits = noise(key_of(np.uint64(seed or 0), np.uint64(group.step_count)), np.arange(theta.size, dtype=np.uint32))
            own = None if seed is None else product(bits, salt_of(len(arrays) - i))
            expected.append(encoded(x.astype(np.float32), a, own) if isinstance(a, Codes) else (x,))
    opt.step(g)
    for a, values in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), values[0])
        if isinstance(a, Codes):
            np.testing.assert_array_equal(a.scales, values[1])


@pytest.mark.wide(by=lambda row, seed: (form(row),))
@pytest.mark.parametrize("seed", [None, 7], ids=["nearest", "stochastic"])
@every_rule
def test_a_step_is_the_rule_between_decoding_and_encoding(row, seed):
    rounding = "nearest" if seed is None else "stochastic"
    opt = row.make(gradient(1, 1003), state_dtype="int8", rounding=rounding)
    if "seed" in opt.param_groups[0]:
        opt.seed = seed or 0
    for step in range(3):
        check_step(opt, gradient(step, 1003), seed and opt.param_groups[0].hyper.get("seed", 0))


def test_parameters_of_float64_have_them_too():
    opt = fastopt.Adam(gradient(1, 1003, np.float64), **STOCHASTIC)
    for step in range(3):
        check_step(opt, gradient(step, 1003, np.float64), 3)


def run(opt, steps, flat=None):
    for _ in range(steps):
        grads = [gradient(100 * opt.step_count + i, shape) for i, shape in enumerate(SHAPES)]
        if flat is None:
            opt.step([np.asarray(g) for g in grads])
        else:
            g = flat.like()
            g.buffer[:] = np.concatenate([np.ravel(each) for each in grads])
            opt.step(g)


def joined(opt):
    return np.concatenate([np.ravel(w) for w in opt.params])


def adam(options=STOCHASTIC):
    return fastopt.Adam([w.copy() for w in PARTS], **options)


@pytest.fixture(scope="module")
def stepped():
    opt = adam()
    run(opt, 4)
    return opt


def test_threads_and_one_buffer_make_no_difference(stepped):
    before = fastopt.get_num_threads()
    fastopt.set_num_threads(1)
    alone = adam()
    run(alone, 4)
    fastopt.set_num_threads(before)
    np.testing.assert_array_equal(joined(alone), joined(stepped))
    flat = fastopt.flatten(PARTS)
    opt = fastopt.Adam(flat, **STOCHASTIC)
    run(opt, 4, flat)
    np.testing.assert_array_equal(flat.buffer, joined(stepped))
    codes = np.concatenate([np.ravel(np.asarray(each)) for each in stepped.state["v"]])
    np.testing.assert_array_equal(opt.state["v"].buffer, codes)


def test_states_take_little_more_than_a_byte(stepped):
    states = [array for p in stepped.param_groups[0].parameters for array in p.states.values()]
    assert sum(array.nbytes + array.scales.nbytes for array in states) < 2.2 * joined(stepped).size
    assert {array.dtype for array in states} == {np.dtype(np.int8), np.dtype(np.uint8)}


def again(opt, way):
    if way == "state dict":
        other = fastopt.Adam([w.copy() for w in opt.params], **STOCHASTIC)
        other.load_state_dict(opt.state_dict())
        return other
    return copy.deepcopy(opt) if way == "copy" else pickle.loads(pickle.dumps(opt))


@pytest.mark.parametrize("way", ["state dict", "copy", "pickle"])
def test_another_goes_on_with_the_same_bits(stepped, way):
    one, other = again(stepped, way), again(stepped, way)
    run(one, 2)
    run(other, 2)
    run(expected := again(stepped, "copy"), 2)
    for each in (one, other):
        np.testing.assert_array_equal(joined(each), joined(expected))


def test_a_file_has_them(stepped, tmp_path):
    fastopt.save(tmp_path / "opt", opt := again(stepped, "copy"), params=opt.params)
    other = adam()
    fastopt.load(tmp_path / "opt", other, params=other.params)
    for own, there in zip(other.state["m"], opt.state["m"], strict=True):
        np.testing.assert_array_equal(own.numbers(), there.numbers())


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_loading_converts_and_says_so(stepped, form):
    other = fastopt.Adam([w.copy() for w in stepped.params], state_dtype=form)
    with pytest.warns(UserWarning, match="'m' of params"):
        other.load_state_dict(stepped.state_dict())
    for name in ("m", "v"):
        for own, there in zip(other.state[name], stepped.state[name], strict=True):
            np.testing.assert_allclose(read(own), there.numbers(), rtol=0 if form == "float32" else 2**-8)
    back = adam()
    with pytest.warns(UserWarning, match="to int8"):
        back.load_state_dict(other.state_dict())
    for own, there in zip(back.state["m"], stepped.state["m"], strict=True):
        np.testing.assert_allclose(own.numbers(), there.numbers(), rtol=1 / 16, atol=1e-2)


def test_a_state_dict_with_other_scales_is_refused(stepped):
    saved, other = stepped.state_dict(), adam()
    saved["state"]["v.scales"]["params[3]"] = saved["state"]["v.scales"]["params[3]"][1:]
    with refused(ValueError, r"state_dict['state']['v.scales']['params[3]'] must have the shape (1250,), got (1249,)"):
        other.load_state_dict(saved)
    del saved["state"]["v.scales"]
    with pytest.raises(TypeError, match="got uint8"):
        other.load_state_dict(saved)


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_complex_parameters(mode):
    z = [gradient(i, 1003) + 1j * gradient(9 + i, 1003) for i in range(2)]
    low, full = z[0].astype(np.complex64), z[0].astype(np.complex64)
    one = fastopt.Adam(low, complex_mode=mode, **STOCHASTIC)
    other = fastopt.Adam(full, complex_mode=mode, state_dtype="float32")
    for step in range(20):
        g = (gradient(step, 1003) + 1j * gradient(50 + step, 1003)).astype(np.complex64)
        one.step(g)
        other.step(g)
    assert np.abs(low - full).max() < 0.2 * np.abs(full - z[0]).max()
    np.testing.assert_allclose(one.state["m"].numbers(), other.state["m"], atol=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(other.state["m"], one.state["m"].numbers())


def test_a_small_second_moment_never_becomes_zero():
    w, g = np.zeros(SIZE, np.float32), np.full(SIZE, 1e-8, np.float32)
    g[0] = 1e8
    for rounding in ("nearest", "stochastic"):
        opt = fastopt.Adam(w, lr=1.0, eps=0.0, state_dtype="int8", rounding=rounding)
        for _ in range(50):
            opt.step(g)
        assert np.all(opt.state["v"].numbers() > 0)
        assert np.all(np.abs(w) <= 2 * 50 * 1.0)


def test_where_nothing_moves_nothing_changes():
    mask = np.arange(10 * SIZE) < 5 * SIZE
    opt = fastopt.Adam(np.ones(10 * SIZE, np.float32), mask=mask, **STOCHASTIC)
    before = np.arange(10 * SIZE, dtype=np.float32)
    write(opt.param_groups[0].parameters[0].states["m"], before)
    was = opt.state["m"].numbers()
    for step in range(3):
        opt.step(gradient(step, 10 * SIZE))
    np.testing.assert_array_equal(opt.state["m"].numbers()[~mask], was[~mask])
    assert not np.any(opt.state["m"].numbers()[mask] == was[mask])


def test_own_rules_say_what_is_never_negative():
    @fastopt.rule(state="m v", hyper="lr beta=0.9", nonnegative="v")
    def own(theta, g, lr, m, v, beta, one_minus_beta):
        m = beta * m + one_minus_beta * g
        v = beta * v + one_minus_beta * g * g
        return theta - lr * m / np.sqrt(v), m, v

    opt = own(gradient(1, 1003), lr=0.1, state_dtype="int8", rounding="stochastic")
    assert [opt.state[name].dtype for name in "mv"] == [np.int8, np.uint8]
    for step in range(2):
        check_step(opt, gradient(step, 1003), 0)
    with refused(ValueError, "nonnegative must name states, m, got 'v'"):
        fastopt.rule(state="m", nonnegative="v")(lambda theta, g, lr, m: (theta - lr * m, m))


def test_begin_anew():
    opt = fastopt.AdaGrad(gradient(1, 100), initial_accumulator_value=0.5, **STOCHASTIC)
    np.testing.assert_allclose(opt.state["r"].numbers(), 0.5, rtol=1e-4)
    opt.step(gradient(2, 100))
    opt.reset()
    np.testing.assert_allclose(opt.state["r"].numbers(), 0.5, rtol=1e-4)


def test_what_can_not_have_them(tmp_path):
    w = gradient(1, 100)
    words = "state_dtype can't be 'int8' for 'z', which theta comes from, or a copy of it: 8 bits can't follow its steps"
    for optimizer in (fastopt.ScheduleFreeSGD, fastopt.FTRL):
        with refused(ValueError, words):
            optimizer(w, lr=0.1, state_dtype={"z": "int8"})
    with pytest.raises(ValueError, match="'theta_ema'"):
        fastopt.Adam(w, ema_decay=0.9, state_dtype={"theta_ema": "int8"})
    for optimizer, name in ((fastopt.ASGD, "ax"), (fastopt.FTRL, "z"), (fastopt.MADGRAD, "s")):
        assert optimizer(w, state_dtype="int8").state[name].dtype == np.float32
    table = fastopt.Adam(gradient(1, (10, 4)), state_dtype="int8")
    with refused(ValueError, "state_dtype='int8' is not for steps of some rows, which share blocks with others"):
        table.step_rows(np.array([1]), np.ones((1, 4), np.float32))
    with refused(ValueError, "state_dtype='int8' is not for state_path, whose file has no scales"):
        fastopt.Adam(w, state_dtype="int8", state_path=tmp_path / "states")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="can't be embedded with state_dtype"):
        fastopt.embed(fastopt.Adam, state_dtype="int8").table(1)


def test_codes_keep_their_scales_in_other_shapes_only():
    codes = with_scales(np.zeros(64, np.int8), [64])
    write(codes, np.arange(64, dtype=np.float32))
    assert codes.reshape(8, 8, order="F").scales is codes.scales
    np.testing.assert_array_equal(codes.reshape(8, 8, order="F").numbers(), codes.numbers().reshape(8, 8, order="F"))
    np.testing.assert_array_equal(codes.reshape(8, 8).T.numbers(), codes.numbers().reshape(8, 8).T)
    shuffled = codes[::-1], codes.reshape(4, 4, 4).swapaxes(0, 1)
    for without in (codes[:32], *shuffled, codes.copy(), copy.deepcopy(codes), pickle.loads(pickle.dumps(codes)), codes == 0):
        with refused(ValueError, "some codes alone, and copies, have no scales"):
            without.numbers()


def test_each_array_of_a_flat_has_its_numbers():
    flat = fastopt.flatten({"W": np.ones((7, 9), np.float32), "b": np.ones(40, np.float32), "none": np.ones(0, np.float32)})
    opt, grads = fastopt.Adam(flat, **STOCHASTIC), flat.like()
    grads.buffer[:] = gradient(1, grads.buffer.size)
    opt.step(grads)
    m = opt.state["m"]
    np.testing.assert_array_equal(np.concatenate([np.ravel(m[key].numbers()) for key in m]), m.buffer.numbers())
    np.testing.assert_allclose(m["W"].numbers(), 0.1 * grads["W"], atol=0.01)


def test_a_state_may_be_called_scales():
    @fastopt.rule(state="m m_scales", hyper="lr")
    def own(theta, g, lr, m, m_scales):
        return theta - lr * g, m + g, m_scales + g

    for kept in (None, "int8"):
        one, other = (own(gradient(1, 40), lr=0.1, state_dtype=kept) for _ in range(2))
        write(one.param_groups[0].parameters[0].states["m"], gradient(2, 40))
        other.load_state_dict(one.state_dict())
        np.testing.assert_array_equal(read(other.state["m"]), read(one.state["m"]))
