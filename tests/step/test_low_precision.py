"""States and parameters of 16 bits: the rule in float32 between reading and writing, and nothing else."""

import copy
import io
import pickle
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.engine.formats import computing, decoded, encoded, plain
from fastopt.engine.noise import key_of, noise, product, salt_of
from fastopt.engine.rounding import to_bfloat16_stochastic, to_float16_stochastic
from tests.refusal import refused
from tests.row import next_numbers
from tests.table import RULES, assert_same_bits, every_rule, form

BFLOAT16 = ml_dtypes.bfloat16
STOCHASTIC = {"bfloat16": to_bfloat16_stochastic, "float16": to_float16_stochastic}
FORMATS = ("bfloat16", "float16")
every_format = pytest.mark.parametrize("name", FORMATS)
ADAM = next(row for row in RULES if row.rule.__name__ == "adam")


def dtype_of(name):
    return np.dtype(BFLOAT16 if name == "bfloat16" else name)


def gradient(step, size, dtype=np.float32):
    return np.random.default_rng(step).normal(size=size).astype(dtype)


def expected_step(opt, g, seed=None):
    """The new arrays of an optimizer of one parameter by its rule on NumPy arrays, in the dtypes that they have."""
    (group,) = opt.param_groups
    (p,) = group.parameters
    arrays = group.arrays(p)
    number = p.dtype.type
    with np.errstate(all="ignore"):
        numbers = [n if isinstance(n, np.ndarray) else number(n) for n in next_numbers(opt, g)]
        theta, *states = [decoded(a).astype(p.dtype) for a in arrays]
        new = group.rule(theta, decoded(g).astype(p.dtype), numbers[0], *states, *numbers[1:])
        new = new if isinstance(new, tuple) else (new,)
        if seed is None:
            return [encoded(values, a.dtype) for values, a in zip(new, arrays, strict=True)]
        bits = noise(key_of(np.uint64(seed), np.uint64(group.step_count)), np.arange(theta.size, dtype=np.uint32))
        written = []
        for i, (values, a) in enumerate(zip(new, arrays, strict=True)):
            narrow = {np.dtype(np.uint16): "bfloat16", np.dtype(np.float16): "float16"}.get(plain(a.dtype))
            own = product(bits, salt_of(len(arrays) - i))
            written.append(encoded(values, a.dtype) if narrow is None else STOCHASTIC[narrow](values, own).view(a.dtype))
        return written


def check_step(opt, g, seed=None):
    expected = expected_step(opt, g, seed)
    opt.step(g)
    (group,) = opt.param_groups
    for actual, e in zip(group.arrays(group.parameters[0]), expected, strict=True):
        assert_same_numbers(actual, e)


def assert_same_numbers(actual, expected):
    assert actual.dtype == expected.dtype
    assert_same_bits(decoded(actual), decoded(expected))


@pytest.mark.wide(by=lambda row, name, dtype: (form(row), name, dtype))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_format
@every_rule
def test_states_are_rounded_to_nearest(row, name, dtype):
    theta = gradient(1, 1003, dtype)
    own = dict.fromkeys(row.states, name)
    opt = row.make(theta, state_dtype=own)
    assert {opt.state[state].dtype for state in row.states} <= {dtype_of(name)}
    for step in range(3):
        check_step(opt, gradient(step, 1003))


@pytest.mark.wide(by=lambda row, name: (form(row), name))
@every_format
@every_rule
def test_stochastic_rounding_has_the_noise_of_seed_step_and_element(row, name):
    opt = row.make(gradient(1, 1003), state_dtype=dict.fromkeys(row.states, name), rounding="stochastic")
    if "seed" in opt.param_groups[0]:
        opt.seed = 7
    for step in range(3):
        check_step(opt, gradient(step, 1003), opt.param_groups[0].hyper.get("seed", 0))


@pytest.mark.wide(by=lambda parameter, seed, gradients: ((parameter, seed), gradients))
@pytest.mark.parametrize("parameter", [BFLOAT16, np.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("gradients", [np.float32, np.float16, BFLOAT16])
def test_parameters_and_gradients_of_16_bits(parameter, gradients, seed):
    opt = fastopt.Adam(gradient(1, 1003, parameter), state_dtype="bfloat16")
    opt.rounding, opt.seed = "nearest" if seed is None else "stochastic", seed or 0
    for step in range(3):
        check_step(opt, gradient(step, 1003, gradients), seed)


def test_uint16_has_the_bits_of_bfloat16():
    low = gradient(1, 100, BFLOAT16)
    bits = low.view(np.uint16).copy()
    one, other = (fastopt.Adam(w, lr=0.1, state_dtype="bfloat16") for w in (low, bits))
    for step in range(3):
        one.step(gradient(step, 100, BFLOAT16))
        other.step(gradient(step, 100, BFLOAT16).view(np.uint16))
    np.testing.assert_array_equal(low.view(np.uint16), bits)


def test_without_ml_dtypes_states_are_bits(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    bits, expected = (fastopt.Adam(gradient(1, 100), state_dtype="bfloat16") for _ in range(2))
    assert bits.state["m"].dtype == np.uint16
    bits.step(gradient(2, 100))
    monkeypatch.undo()
    expected.step(gradient(2, 100))
    np.testing.assert_array_equal(bits.state["v"], expected.state["v"].view(np.uint16))


def run(opt, steps, flat=None):
    for _ in range(steps):
        grads = [gradient(100 * opt.step_count + i, w.shape) for i, w in enumerate(PARTS)]
        if flat is None:
            opt.step(grads)
        else:
            g = flat.like()
            g.buffer[:] = np.concatenate([each.ravel() for each in grads])
            opt.step(g)


PARTS = [gradient(i, shape) for i, shape in enumerate([(70, 50), (3,), (), (40_000,)])]


def joined(opt):
    arrays = [*opt.params, *(w for name in opt.state for w in opt.state[name])]
    return np.concatenate([decoded(np.asarray(a)).ravel() for a in arrays])


@pytest.fixture(scope="module")
def stepped():
    """What all ways to step give: a list of arrays, on one thread."""
    before = fastopt.get_num_threads()
    fastopt.set_num_threads(1)
    opt = fastopt.Adam([w.copy() for w in PARTS], state_dtype="bfloat16", rounding="stochastic", seed=3)
    run(opt, 4)
    fastopt.set_num_threads(before)
    return joined(opt)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_noise_is_the_same_for_every_number_of_threads(stepped, threads):
    fastopt.set_num_threads(threads)
    fastopt.set_parallel_threshold(1)
    opt = fastopt.Adam([w.copy() for w in PARTS], state_dtype="bfloat16", rounding="stochastic", seed=3)
    run(opt, 4)
    assert_same_bits(joined(opt), stepped)


def test_noise_is_the_same_in_a_flat_buffer(stepped):
    flat = fastopt.flatten([w.copy() for w in PARTS])
    opt = fastopt.Adam(flat, state_dtype="bfloat16", rounding="stochastic", seed=3)
    run(opt, 4, flat)
    assert_same_bits(joined(opt), stepped)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_noise_goes_on_where_a_run_goes_on(stepped, duplicate):
    opt = fastopt.Adam([w.copy() for w in PARTS], state_dtype="bfloat16", rounding="stochastic", seed=3)
    run(opt, 2)
    again = duplicate(opt)
    run(again, 2)
    assert_same_bits(joined(again), stepped)
    other = fastopt.Adam([w.copy() for w in PARTS], state_dtype="bfloat16", rounding="stochastic", seed=4)
    run(other, 4)
    assert not np.array_equal(joined(other), stepped)


def test_v_stands_still_only_under_nearest_rounding():
    """The change is a thousandth of v, and half a place of bfloat16 is a 256th to a 512th."""
    size, steps = 4096, 3000
    g = np.ones(size, np.float32)
    final = {}
    for rounding in ("nearest", "stochastic"):
        opt = fastopt.Adam(np.zeros(size, np.float32), lr=0.0, state_dtype={"v": "bfloat16"}, rounding=rounding)
        for _ in range(steps):
            opt.step(g)
        final[rounding] = float(decoded(opt.state["v"]).mean())
    exact = 1.0 - 0.999**steps
    assert final["nearest"] < 0.6 * exact
    # A random walk around the exact value: some hundred roundings count, each by less than a place of 2^-8.
    assert abs(final["stochastic"] - exact) < 6 * 2.0**-8 * np.sqrt(500 / 12) / np.sqrt(size)


@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.sampled_from([{}, {"weight_decay": 0.1}, {"ema_decay": 0.75}]))
def test_lost_bits_make_bfloat16_a_float32(seed, size, options):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=size).astype(BFLOAT16)
    full, kept = low.astype(np.float32), low.copy()
    bare = fastopt.Adam(full, lr=0.01, **options)
    lost = fastopt.Adam(low, lr=0.01, master_weights="lost bits", **options)
    master = fastopt.Adam(kept, lr=0.01, master_weights=True, **options)
    for _ in range(3):
        g = rng.normal(size=size).astype(BFLOAT16)
        for opt in (bare, lost, master):
            opt.step(g)
        both = (low.view(np.uint16).astype(np.int64) << 16) + lost.state["theta_lost"]
        np.testing.assert_array_equal(both.astype(np.uint32).view(np.float32), full)
        assert_same_bits(master.state["theta_master"], full)
        np.testing.assert_array_equal(kept, full.astype(BFLOAT16))
    for name in bare.state:
        assert_same_bits(lost.state[name], bare.state[name])
        assert_same_bits(master.state[name], bare.state[name])


@given(st.integers(0, 2**32 - 1), st.integers(1, 100))
def test_eight_lost_bits_are_the_nearest_of_24(seed, size):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=size).astype(BFLOAT16)
    full = low.astype(np.float32)
    bare, opt = fastopt.Adam(full, lr=0.01), fastopt.Adam(low, lr=0.01, master_weights="8 lost bits")
    for _ in range(3):
        g = rng.normal(size=size).astype(BFLOAT16)
        bare.step(g)
        opt.step(g)
        bits = full.view(np.uint32).astype(np.int64)
        nearest = ((bits + 0x7F + (bits >> 8 & 1)) & 0xFFFFFF00).astype(np.uint32)
        both = (low.view(np.uint16).astype(np.int64) << 16) + 256 * opt.state["theta_lost_8"].astype(np.int64)
        np.testing.assert_array_equal(both.astype(np.uint32), nearest)
        full[:] = nearest.view(np.float32)


def test_a_shard_has_the_noise_of_its_place():
    whole, options = gradient(1, 1000), {"state_dtype": "bfloat16", "rounding": "stochastic"}
    shards = [whole[:300].copy(), whole[300:].copy()]
    opt, *others = (fastopt.Adam(w, **options) for w in (whole, *shards))
    others[1].param_groups[0].parameters[0].first = 300
    for step in range(3):
        g = gradient(step, 1000)
        opt.step(g)
        others[0].step(g[:300])
        others[1].step(g[300:])
    for name in opt.state:
        np.testing.assert_array_equal(np.concatenate([other.state[name] for other in others]), opt.state[name])


OPTIONS = {"bounds": (-0.5, 0.75), "clip_norm": 20.0, "clip_value": 0.5, "flush_subnormals": True, "l1": 0.1}
OPTIONS |= {"maximize": True, "zero_grad": True, "weight_decay": 0.1, "ema_decay": 0.75}


@pytest.mark.wide
@pytest.mark.parametrize("way", [True, "lost bits", "8 lost bits"])
@pytest.mark.parametrize("cautious", [False, True])
def test_masters_go_with_all_options(way, cautious):
    rng = np.random.default_rng(0)
    w, mask = rng.normal(size=1003).astype(BFLOAT16), rng.random(1003) < 0.5
    full, plain_copy, low_copy = w.astype(np.float32), np.zeros(1003, np.float16), np.zeros(1003, np.float16)
    options = OPTIONS | {"mask": mask, "cautious": cautious}
    bare, opt = (
        fastopt.Adam(full, copy_to=plain_copy, **options),
        fastopt.Adam(w, copy_to=low_copy, master_weights=way, **options),
    )
    for _ in range(3):
        g = rng.normal(size=1003).astype(np.float32)
        given = g.copy(), g.copy()
        bare.step(given[0], scale=0.5)
        opt.step(given[1], scale=0.5)
        assert not given[0].any()
        assert not given[1].any()
    np.testing.assert_allclose(
        low_copy.astype(np.float32), plain_copy.astype(np.float32), rtol=0 if way != "8 lost bits" else 2.0**-10
    )
    np.testing.assert_allclose(
        opt.ema, bare.ema, rtol=0 if way != "8 lost bits" else 2.0**-16, atol=1e-6 * (way == "8 lost bits")
    )
    np.testing.assert_allclose(w.astype(np.float32), full, rtol=2.0**-8)


def test_only_what_has_16_bits_has_a_master():
    params = {"a": gradient(1, 3, BFLOAT16), "b": gradient(2, 3)}
    opt = fastopt.SGD(params, momentum=0.9, master_weights=True)
    assert opt.state["theta_master"]["b"] is None
    assert list(opt.state_dict()["state"]["theta_master"]) == ["params['a']"]
    opt.step({"a": gradient(3, 3), "b": gradient(4, 3)})
    again = copy.copy(opt)
    opt.reset()
    np.testing.assert_array_equal(opt.state["theta_master"]["a"], params["a"].astype(np.float32))
    assert again.state["theta_master"]["a"].dtype == np.float32


@pytest.mark.wide
@pytest.mark.parametrize("parameter", [np.float32, BFLOAT16, np.float16], ids=str)
@pytest.mark.parametrize("average", [None, "float64", "bfloat16"])
def test_parameters_and_averages_change_places_and_come_back(parameter, average):
    opt = fastopt.Adam(gradient(1, 50, parameter), lr=0.1, ema_decay=0.5, state_dtype=average and {"theta_ema": average})
    for step in range(3):
        opt.step(gradient(step, 50))
    assert opt.ema.dtype == (computing(np.dtype(parameter)) if average is None else dtype_of(average))
    before, ema = opt.params.copy(), opt.ema.copy()
    with opt.swap_ema():
        np.testing.assert_array_equal(decoded(opt.params), decoded(encoded(decoded(ema), np.dtype(parameter))))
    np.testing.assert_array_equal(opt.params, before)
    np.testing.assert_array_equal(opt.ema, ema)


def test_copies_of_the_parameters_keep_their_dtype_unless_named():
    opt = fastopt.ScheduleFreeSGD(gradient(1, 5), state_dtype="bfloat16", ema_decay=0.9)
    assert {name: state.dtype for name, state in opt.state.items()} == dict.fromkeys(opt.state, np.float32)
    opt = fastopt.ScheduleFreeSGD(gradient(1, 5), state_dtype={"z": "bfloat16"})
    assert opt.state["z"].dtype == BFLOAT16
    opt.step(gradient(2, 5))
    assert opt.eval_params().dtype == np.float32


def through_npz(blob):
    file = io.BytesIO()
    np.savez(file, **{name: arrays["params"] for name, arrays in blob["state"].items()})
    file.seek(0)
    with np.load(file) as arrays:
        return {**blob, "state": {name: {"params": arrays[name]} for name in arrays}}


KINDS = (None, "float64", "float32", "bfloat16", "float16", {"m": "bfloat16"})


@pytest.mark.parametrize("mode", ["real", "parts", "modulus"])
@pytest.mark.parametrize("there", KINDS, ids=str)
@pytest.mark.parametrize("here", KINDS, ids=str)
def test_state_dicts_are_converted_between_formats(mode, there, here):
    w = gradient(1, (4, 3)) if mode == "real" else (gradient(1, (4, 3)) + 1j * gradient(2, (4, 3))).astype(np.complex64)
    options = {"complex_mode": mode} if mode != "real" else {}
    opt = fastopt.Adam(np.asfortranarray(w), state_dtype=there, **options)
    for _ in range(2):
        opt.step(w)
    blob = through_npz(pickle.loads(pickle.dumps(opt.state_dict())))
    again = fastopt.Adam(w.copy(), state_dtype=here, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again.load_state_dict(blob)
    own, other = opt.param_groups[0].parameters[0].states, again.param_groups[0].parameters[0].states
    changed = [name for name in own if own[name].dtype != other[name].dtype]
    assert [[f"{name!r}" in str(w.message) for name in changed] for w in caught] == [[True] * len(changed)] * bool(changed)
    for name in own:
        exact = decoded(own[name]).reshape(-1, opt.param_groups[0].parameters[0].array.size).T
        order = np.arange(12).reshape(3, 4).T.ravel()  # of Fortran in the order of C
        numbers = decoded(own[name]).reshape(12, -1)[order].ravel()
        assert exact.size == numbers.size
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(decoded(other[name]), decoded(encoded(numbers, other[name].dtype)))


def test_dicts_of_before_these_options_still_load():
    opt = fastopt.Adam(gradient(1, 3))
    blob = opt.state_dict()
    for key in ("state_dtype", "rounding", "seed", "master_weights"):
        del blob["groups"][0][key]
    opt.load_state_dict(blob)


def test_what_is_not_allowed_is_refused():
    w, low = gradient(1, 3), gradient(1, 3, np.float16)
    with refused(ValueError, "state_dtype must be", "'bfloat16'", "'int4'"):
        fastopt.Adam(w, state_dtype="int4")
    with refused(ValueError, "state_dtype['m'] must be", "got 8"):
        fastopt.Adam(w, state_dtype={"m": 8})
    with refused(ValueError, "state_dtype names a state 'b'", "Adam", "m, v"):
        fastopt.Adam(w, state_dtype={"b": "bfloat16"})
    with refused(ValueError, "rounding must be", "'nearest' or 'stochastic'", "'up'"):
        fastopt.Adam(w, rounding="up")
    with refused(TypeError, "seed must be an integer", "0.5"):
        fastopt.Adam(w, seed=0.5)
    with refused(ValueError, "master_weights must be", "'lost bits'", "'float64'"):
        fastopt.Adam(w, master_weights="float64")
    with refused(ValueError, "master_weights must be", "array(['float32', 'lost bits']"):
        fastopt.Adam(w, master_weights=np.array(["float32", "lost bits"]))
    with refused(ValueError, "'lost bits'", "bfloat16", "params is of float16"):
        fastopt.Adam(low, master_weights="lost bits")
    opt = fastopt.Adam(w)
    with refused(ValueError, "state_dtype must stay as at construction", opt=opt):
        opt.state_dtype = "float16"
    with refused(ValueError, "master_weights must stay as at construction", opt=opt):
        opt.param_groups[0]["master_weights"] = True
    with refused(TypeError, "grads must be of float32, float64, float16 or bfloat16", "got int8", opt=opt):
        opt.step(np.zeros(3, np.int8))
