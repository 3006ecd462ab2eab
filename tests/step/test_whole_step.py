"""Norms, gradients that are not finite, averages, copies, micro-batches: what surrounds the update in a training step."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.engine import runtime
from fastopt.engine.sums import BLOCK
from fastopt.schedules import BiasCorrected, PlainAverage
from fastopt.step import averages
from fastopt.step.plans import Plans
from tests.peers import SHAPES, assert_equal_paths, gradients, start
from tests.refusal import refused
from tests.table import FLOATS, assert_same_bits, every_dtype


def several(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(dtype) for size in (3, 0, BLOCK + 5)]


# Norms


@every_dtype
def test_the_norm_is_that_of_all_gradients_together(dtype):
    params, grads = several(dtype), several(dtype, seed=1)
    opt = fastopt.SGD([{"params": params[:1]}, {"params": params[1:]}], clip_norm=math.inf)
    assert opt.grad_norm is None
    opt.step([grads[:1], grads[1:]])
    expected = np.linalg.norm(np.concatenate(grads).astype(np.float64))
    assert opt.grad_norm == pytest.approx(expected, rel=1e-14)
    opt.clip_norm = None
    assert opt.grad_norm is None


@pytest.mark.peers
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_clipping_by_the_norm_is_that_of_optax(limit, optax):
    def theirs():
        params = start()
        optimizer = optax.chain(optax.clip_by_global_norm(limit), optax.adam(0.01))
        state = optimizer.init(params)
        for g in gradients():
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
            yield [np.asarray(p) for p in params]

    assert_equal_paths(lambda params: fastopt.Adam(params, lr=0.01, clip_norm=limit), theirs())


@pytest.mark.peers
def test_the_norm_is_that_of_pytorch(torch):
    params = start()
    opt = fastopt.SGD(params, clip_norm=math.inf)
    for g in gradients():
        opt.step(g)
        assert opt.grad_norm == pytest.approx(float(torch.nn.utils.get_total_norm([torch.from_numpy(x) for x in g])), rel=1e-13)
    assert len(params) == len(SHAPES)


def test_a_group_is_clipped_by_itself_before_all_together():
    a, b = np.zeros(1), np.zeros(1)
    opt = fastopt.SGD([{"params": a, "clip_norm": 3.0}, {"params": b}], lr=1.0, clip_norm=2.5)
    opt.step([np.array([30.0]), np.array([4.0])])
    # 30 is limited to 3, and then (3, 4) of norm 5 to norm 2.5.
    np.testing.assert_allclose([a[0], b[0]], [-1.5, -2.0], rtol=1e-15)
    assert opt.grad_norm == pytest.approx(math.hypot(30.0, 4.0))
    opt.clip_norm = None
    opt.param_groups[1]["clip_norm"] = lambda step: 0.5 * step
    opt.step([np.array([1.0]), np.array([-4.0])])
    np.testing.assert_allclose([a[0], b[0]], [-2.5, -1.5], rtol=1e-15)


@every_dtype
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_the_norm_has_the_same_bits_for_every_number_of_threads(dtype, threads, monkeypatch):
    g = np.random.default_rng(0).normal(size=5 * BLOCK + 77).astype(dtype)
    serial = fastopt.SGD(np.zeros_like(g), clip_norm=1.0)
    serial.step(g)
    monkeypatch.setattr(runtime, "_parallel_threshold", 0)
    fastopt.set_num_threads(threads)
    parallel = fastopt.SGD(np.zeros_like(g), clip_norm=1.0)
    parallel.step(g)
    assert parallel.grad_norm == serial.grad_norm
    assert_same_bits(parallel.params, serial.params)


@pytest.mark.parametrize("magnitude", [1e-40, 1e-30, 1e30, 3e38])
def test_squares_of_float32_neither_overflow_nor_vanish(magnitude):
    g = np.full(10_000, magnitude, np.float32)
    opt = fastopt.SGD(np.zeros(10_000, np.float32), lr=1.0, clip_norm=0.01 * magnitude, nonfinite="skip")
    opt.step(g)
    assert opt.grad_norm == pytest.approx(100.0 * float(g[0]), rel=1e-12)
    np.testing.assert_allclose(opt.params, -1e-4 * magnitude, rtol=1e-5, atol=np.finfo(np.float32).smallest_subnormal)
    assert opt.skipped_steps == 0


@pytest.mark.parametrize("magnitude", [5e-324, 1e-200, 1e-162, 1e160, 1.7e308])
def test_squares_of_float64_may_leave_its_range(magnitude):
    g = np.full(4, magnitude)
    opt = fastopt.SGD(np.zeros(4), lr=1.0, clip_norm=magnitude, nonfinite="raise")
    opt.step(g)
    if magnitude < 1e308:
        assert opt.grad_norm == pytest.approx(2.0 * magnitude, rel=1e-12)
        np.testing.assert_allclose(opt.params, -0.5 * magnitude, rtol=1e-12, atol=5e-324)
    else:
        assert opt.grad_norm == math.inf  # which it is, rounded; all elements are finite, so nothing is refused
    assert opt.step_count == 1


def test_elements_that_are_masked_out_have_no_part_in_the_norm():
    mask = np.array([True, False])
    opt = fastopt.SGD(np.zeros(2), lr=1.0, mask=mask, clip_norm=1.0, nonfinite="raise")
    opt.step(np.array([2.0, np.nan]))
    np.testing.assert_array_equal(opt.params, [-1.0, 0.0])
    assert opt.grad_norm == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_without_a_word_about_it_nonfinite_gradients_propagate(bad):
    opt = fastopt.SGD(np.zeros(2), lr=1.0, clip_norm=1.0)
    opt.step(np.array([bad, 1.0]))
    # An infinite norm leaves nothing of finite elements, and nobody knows what NaN would leave.
    np.testing.assert_array_equal(opt.params, [np.nan, np.nan if np.isnan(bad) else 0.0])
    assert opt.step_count == 1
    watching = fastopt.SGD(np.zeros(2), lr=1.0, clip_norm=math.inf)
    watching.step(np.array([bad, 1.0]))
    np.testing.assert_array_equal(watching.params, [-bad, -1.0])  # nothing is clipped


# Gradients that are not finite


@given(st.sampled_from(FLOATS), st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_element_is_enough_to_skip_a_step(dtype, size, seed, bad):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=size).astype(dtype)
    opt = fastopt.Adam(theta, nonfinite="skip")
    opt.step(rng.normal(size=size).astype(dtype))
    before = copy.deepcopy((theta, opt.state_dict()))
    g = rng.normal(size=size).astype(dtype)
    g[rng.integers(size)] = bad
    opt.step(g)
    assert opt.skipped_steps == 1
    before[1]["whole"]["skipped_steps"] = 1
    np.testing.assert_equal((theta, opt.state_dict()), before)
    assert not math.isfinite(opt.grad_norm)


def test_an_error_names_the_group_the_array_and_the_first_index():
    params = [{"params": {"W": np.zeros((2, 3)), "b": np.zeros(2)}}, {"params": np.zeros((2, 2), order="F")}]
    opt = fastopt.Adam(params, nonfinite="raise")
    grads = [{"W": np.ones((2, 3)), "b": np.ones(2)}, np.ones((2, 2), order="F")]
    grads[0]["W"][1, 2] = -np.inf
    grads[1][0, 1] = np.nan
    with refused(ValueError, "params[0]['params']['W'] must be finite, got -inf at index (1, 2)", opt=opt):
        opt.step(grads)
    grads[0]["W"][1, 2] = 0.0
    with refused(ValueError, "params[1]['params'] must be finite, got nan at index (0, 1)", opt=opt):
        opt.step(grads)
    assert opt.skipped_steps == 0
    flat = fastopt.flatten({"a": np.zeros(3), "e": np.zeros(0), "c": np.zeros((2, 2))})
    grads = flat.like()
    grads["c"][1, 0] = np.nan
    with refused(ValueError, "params['c'] must be finite, got nan at index (1, 0)"):
        fastopt.SGD(flat, nonfinite="raise").step(grads)
    with refused(ValueError, "params must be finite, got nan at index ()"):
        fastopt.SGD(np.zeros(()), nonfinite="raise").step(np.array(np.nan))


def test_what_a_scale_makes_infinite_is_not_finite():
    opt = fastopt.SGD(np.zeros(3, np.float32), nonfinite="skip")
    opt.step(np.full(3, 1e30, np.float32), scale=1e20)
    assert opt.skipped_steps == 1
    # Nor is what does not fit into the parameter's dtype.
    opt.step(np.full(3, 1e300))
    assert opt.skipped_steps == 2


def test_a_skipped_step_draws_no_noise_and_zeroes_the_gradient():
    g = np.array([np.nan, 1.0])
    opt = fastopt.NoisySGD(np.zeros(2), nonfinite="skip", zero_grad=True)
    before = copy.deepcopy(opt.state_dict()["generator"])
    opt.step(g)
    assert not g.any()
    assert opt.state_dict()["generator"] == before


def test_skipped_steps_and_options_are_saved():
    opt = fastopt.SGD(np.zeros(1), nonfinite="skip", clip_norm=2.0, reduction="sum")
    opt.step(np.array([np.nan]))
    other = fastopt.SGD(np.zeros(1))
    other.load_state_dict(opt.state_dict())
    _, loaded = pickle.loads(pickle.dumps((opt.params, opt)))
    for each in (other, loaded, copy.copy(opt), copy.deepcopy(opt)):
        assert (each.skipped_steps, each.nonfinite, each.clip_norm) == (1, "skip", 2.0)
        assert "clip_norm=2.0, nonfinite='skip', reduction='sum', skipped_steps=1" in repr(each)


# Averages


@pytest.mark.peers
def test_the_average_is_that_of_pytorch(torch):
    model = torch.nn.Linear(4, 3)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(model)  # the first time it copies them
    theirs = torch.optim.SGD(model.parameters(), lr=0.1)
    params = [p.detach().numpy().copy() for p in model.parameters()]
    opt = fastopt.SGD(params, lr=0.1, ema_decay=0.9)
    rng = np.random.default_rng(0)
    for _ in range(10):
        grads = [rng.normal(size=p.shape) for p in params]
        for p, g in zip(model.parameters(), grads, strict=True):
            p.grad = torch.from_numpy(g)
        theirs.step()
        averaged.update_parameters(model)
        opt.step(grads)
        for own, their in zip(opt.ema, averaged.module.parameters(), strict=True):
            np.testing.assert_allclose(own, their.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.peers
def test_the_corrected_average_is_that_of_optax(optax):
    w = np.array([1.0, -2.0])
    opt = fastopt.SGD(w, lr=0.1, ema_decay=BiasCorrected(0.95))
    averaging = optax.ema(0.95, debias=True)
    state = averaging.init(w)
    for g in np.random.default_rng(0).normal(size=(30, 2)):
        opt.step(g)
        expected, state = averaging.update(w.copy(), state)
        np.testing.assert_allclose(opt.ema, expected, rtol=1e-12)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (3, 1), (2, 4)])
def test_the_plain_average_is_the_mean(start, every):
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=0.1, ema_decay=PlainAverage(start, every))
    seen = []
    for step, g in enumerate(np.random.default_rng(0).normal(size=(20, 3))):
        opt.step(g)
        if step >= start and (step - start) % every == 0:
            seen.append(w.copy())
        np.testing.assert_allclose(opt.ema, np.mean(seen, axis=0) if seen else w, rtol=1e-12)


@pytest.mark.parametrize("bad", [(-1, 1), (0, 0), (0.5, 1), (0, True)])
def test_bad_plain_averages_are_refused(bad):
    with pytest.raises((TypeError, ValueError), match="must be"):
        PlainAverage(*bad)


def test_parameters_and_averages_swap_for_a_while():
    params = {"W": np.ones((2, 3)), "b": np.ones(2, np.float32)}
    opt = fastopt.Adam(params, lr=0.5, ema_decay=0.5)
    opt.step({"W": np.ones((2, 3)), "b": np.ones(2)})
    with opt.swap_ema():
        np.testing.assert_allclose(params["W"], 0.75)
        np.testing.assert_allclose(opt.ema["W"], 0.5)
        for refuse in (lambda: opt.step(params), opt.state_dict, lambda: opt.load_state_dict({}), lambda: pickle.dumps(opt)):
            with pytest.raises(RuntimeError, match="swapped"):
                refuse()
        with pytest.raises(RuntimeError, match="swapped"), opt.swap_ema():
            pass
        np.testing.assert_allclose(params["b"], 0.75)
    with pytest.raises(ZeroDivisionError), opt.swap_ema():
        _ = 1 / 0
    np.testing.assert_allclose(params["W"], 0.5)
    np.testing.assert_allclose(opt.ema["b"], 0.75)
    opt.step({"W": np.ones((2, 3)), "b": np.ones(2)})


@pytest.mark.parametrize("is_taken", [False, True])
def test_an_interrupt_while_averages_come_in_leaves_all_in_their_places(is_taken, monkeypatch):
    opt = fastopt.SGD(w := np.ones(3), lr=1.0, ema_decay=0.5)
    opt.step(np.ones(3))
    run = Plans.run_vectors

    def interrupted(*arguments):
        monkeypatch.undo()
        if is_taken:
            run(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Plans, "run_vectors", interrupted)
    with pytest.raises(KeyboardInterrupt), opt.swap_ema():
        pass
    assert (w.tolist(), opt.ema.tolist()) == ([0.0] * 3, [0.5] * 3)


def test_nobody_steps_what_is_half_way(monkeypatch):
    opt = fastopt.SGD(w := np.ones(3), lr=1.0, ema_decay=0.5)
    opt.step(np.ones(3))
    run = Plans.run_vectors

    def followed(*arguments):  # by a signal handler, say
        ended = run(*arguments)
        with pytest.raises(RuntimeError, match="swapped"):
            opt.step(np.ones(3))
        return ended

    monkeypatch.setattr(Plans, "run_vectors", followed)
    with opt.swap_ema():
        assert w.tolist() == [0.5] * 3
    assert (w.tolist(), opt.ema.tolist()) == ([0.0] * 3, [0.5] * 3)


def test_averages_that_find_no_memory_to_come_in_leave_all_in_their_places(monkeypatch):
    params = [np.ones(3), np.ones(3, np.float16), np.ones(3, np.float16)]
    opt = fastopt.SGD(params, lr=1.0, ema_decay=0.5)
    opt.step([np.ones(3)] * 3)
    encoded, calls = averages.encoded, []

    def without_memory(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return encoded(*arguments)

    monkeypatch.setattr(averages, "encoded", without_memory)
    with pytest.raises(MemoryError), opt.swap_ema():
        pass
    for own, average in zip(params, opt.ema, strict=True):
        assert (own.tolist(), average.tolist()) == ([0.0] * 3, [0.5] * 3)


def test_groups_may_have_averages_or_none():
    a, b = np.ones(1), np.ones(1)
    opt = fastopt.SGD([{"params": a, "ema_decay": 0.5}, {"params": b}], lr=1.0)
    opt.step([np.ones(1), np.ones(1)])
    assert opt.ema[0] == 0.5
    assert opt.ema[1] is None
    with opt.swap_ema():
        assert (a[0], b[0]) == (0.5, 0.0)
    with refused(ValueError, "needs the state 'theta_ema'", opt=opt):
        opt.param_groups[1]["ema_decay"] = 0.9
    opt.param_groups[0]["ema_decay"] = None
    opt.step([np.ones(1), np.ones(1)])
    assert opt.ema[0] == 0.5


def test_without_averages_there_is_nothing_to_swap():
    opt = fastopt.SGD(np.ones(1))
    with pytest.raises(AttributeError, match="has no averages; construct it with ema_decay="):
        _ = opt.ema
    with pytest.raises(AttributeError, match="has no averages"), opt.swap_ema():
        pass


def test_averages_are_state_and_resume():
    w = np.ones(3)
    opt = fastopt.Adam(w, lr=0.1, ema_decay=0.9)
    opt.step(np.ones(3))
    other = fastopt.Adam(w.copy(), lr=0.1, ema_decay=0.9)
    other.load_state_dict(opt.state_dict())
    opt.step(np.ones(3))
    other.step(np.ones(3))
    assert_same_bits(opt.ema, other.ema)
    assert_same_bits(opt.state["theta_ema"], opt.ema)


# Copies


def test_copies_follow_from_the_beginning():
    w = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
    low, half = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float16)
    opt = fastopt.SGD(w, lr=0.5, copy_to=low)
    assert_same_bits(low, w.astype(np.float32))
    opt.step(np.ones((2, 3)))
    assert_same_bits(low, w.astype(np.float32))
    opt.param_groups[0]["copy_to"] = half
    assert_same_bits(half, w.astype(np.float16))
    before = low.copy()
    opt.step(np.ones((2, 3)))
    assert_same_bits(low, before)
    assert_same_bits(half, w.astype(np.float16))
    opt.param_groups[0]["copy_to"] = None
    opt.step(np.ones((2, 3)))
    assert not np.array_equal(half, w.astype(np.float16))


@pytest.mark.peers
@pytest.mark.parametrize("as_bits", [True, False])
def test_bfloat16_has_the_bits_of_ml_dtypes(as_bits):
    import ml_dtypes

    rng = np.random.default_rng(0)
    w = (rng.normal(size=1000) * 10.0 ** rng.uniform(-42, 38, size=1000)).astype(np.float32)
    low = np.zeros(1000, np.uint16 if as_bits else ml_dtypes.bfloat16)
    opt = fastopt.SGD(w, lr=1e-3, copy_to=low)
    for _ in range(2):
        assert_same_bits(low.view(np.uint16), w.astype(ml_dtypes.bfloat16).view(np.uint16))
        opt.step(rng.normal(size=1000).astype(np.float32))


def test_copies_are_nested_and_flat_as_the_parameters():
    params = [np.ones((2, 3), order="F"), np.ones(2)]
    copies = [np.zeros((2, 3), np.float32, order="F"), np.zeros(2, np.float16)]
    fastopt.SGD(params, lr=1.0, copy_to=copies).step([np.full((2, 3), 0.5), np.full(2, 0.25)])
    np.testing.assert_array_equal(copies[0], 0.5)
    np.testing.assert_array_equal(copies[1], 0.75)
    flat = fastopt.flatten([np.ones(3), np.ones((2, 2))])
    half = flat.like(np.float16)
    fastopt.SGD(flat, lr=1.0, copy_to=half).step(flat.like())
    np.testing.assert_array_equal(half[1], 1.0)


def test_a_copy_stays_with_its_optimizer_and_goes_into_pickles():
    w, low = np.ones(3), np.zeros(3, np.float32)
    opt = fastopt.SGD(w, lr=1.0, copy_to=low)
    blob = opt.state_dict()
    assert "copy_to" not in blob["groups"][0]
    opt.load_state_dict(blob)
    theirs, copied, loaded = pickle.loads(pickle.dumps((w, low, opt)))
    loaded.step(np.full(3, 0.25))
    np.testing.assert_array_equal(copied, 0.75)
    np.testing.assert_array_equal(theirs, 0.75)
    np.testing.assert_array_equal(low, 1.0)


BAD_COPIES = [
    (np.zeros(3), np.zeros(4, np.float32), ValueError, "copy_to must have the shape (3,) of params, got (4,)"),
    (np.zeros(3), np.zeros(3, np.int64), TypeError, "copy_to must be of float32, float64"),
    (np.zeros(3), np.zeros(3, np.complex64), TypeError, "copy_to must be real as params is, got complex64"),
    (np.zeros(3), [np.zeros(3, np.float32)], TypeError, "copy_to must be a NumPy array, got list"),
    (np.zeros(3), np.zeros(6, np.float32)[::2], ValueError, "copy_to must be contiguous in C order"),
    (np.zeros((2, 2)), np.zeros((2, 2), np.float32, order="F"), ValueError, "copy_to must be contiguous in C order"),
]


@pytest.mark.parametrize(("theta", "low", "error", "words"), BAD_COPIES, ids=lambda value: str(value)[:30])
def test_bad_copies_are_refused(theta, low, error, words):
    with refused(error, words):
        fastopt.SGD(theta, copy_to=low)
    opt = fastopt.SGD(theta)
    with refused(error, words, opt=opt):
        opt.param_groups[0]["copy_to"] = low


def test_copies_must_lie_apart():
    w = np.ones(4)
    with refused(ValueError, "params and copy_to overlap"):
        fastopt.SGD(w, copy_to=w)
    low = np.zeros(4)
    low.flags.writeable = False
    with refused(ValueError, "copy_to is read-only"):
        fastopt.SGD(w, copy_to=low)
    opt = fastopt.Adam(w, copy_to=np.zeros(4))
    with refused(ValueError, "overlap", opt=opt):
        opt.param_groups[0]["copy_to"] = opt.state["m"]
    again = opt.param_groups[0]["copy_to"]
    opt.param_groups[0]["copy_to"] = again  # its own place is free
    with refused(ValueError, "overlaps copy_to", opt=opt):
        opt.step(again)


# Zeroed gradients


@every_dtype
def test_gradients_are_zeroed_wherever_they_lie(dtype):
    w = [np.zeros((3, 4)), np.zeros(()), np.zeros(5), np.zeros(0)]
    grads = [np.ones((4, 3), dtype).T, np.ones((), dtype), np.ones(10, dtype)[::2], np.ones(0, dtype)]
    opt = fastopt.SGD(w, lr=1.0, zero_grad=True)
    opt.step(grads)
    assert all((p == -1).all() for p in w)
    assert not any(g.any() for g in grads)


class Stubborn(np.ndarray):
    """An array that nothing can be assigned to, as one with units may be."""

    def __setitem__(self, key, value):
        raise TypeError("no units")


def test_so_are_those_of_classes_that_refuse_zeros():
    opt = fastopt.SGD(w := np.zeros((3, 4)), lr=1.0, zero_grad=True)
    opt.step(g := np.ones((4, 3)).T.view(Stubborn))
    assert (w == -1).all()
    assert not g.any()


def test_gradients_that_can_not_be_zeroed_are_refused():
    a, b = np.ones(3), np.ones(3)
    opt = fastopt.SGD([a, b], lr=1.0, zero_grad=True)
    g = np.ones(6)
    with refused(ValueError, "grads[0] and grads[1] overlap in memory", opt=opt):
        opt.step([g[:3], g[2:5]])
    fixed = np.ones(3)
    fixed.flags.writeable = False
    with refused(ValueError, "grads[1] is read-only, but zero_grad=True must write to it", opt=opt):
        opt.step([g[:3], fixed])
    assert g.all()
    with refused(ValueError, "grads is read-only, but zero_grad=True must write to it"):
        fastopt.SGD(np.ones(()), zero_grad=True).step(np.float64(1.0))
    opt.step([g[:3], g[3:]])
    assert not g.any()


def test_groups_zero_their_own_gradients():
    grads = [np.ones(2), np.ones(2), np.ones(2)]
    params = [{"params": np.ones(2), "zero_grad": True}, {"params": np.ones(2)}, {"params": np.ones(2), "frozen": True}]
    fastopt.SGD(params).step(grads)
    assert [g.any() for g in grads] == [False, True, True]


# Micro-batches


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_gradients_are_added_in_the_parameters_dtype(dtype, reduction):
    rng = np.random.default_rng(0)
    w, plain = np.zeros(1003, dtype), np.zeros(1003, dtype)
    opt, bare = fastopt.Adam(w, reduction=reduction), fastopt.Adam(plain)
    for count in (1, 3, 2):
        total = np.zeros(1003, dtype)
        for kind in [np.float32, np.float64, np.float32][:count]:
            g = rng.normal(size=1003).astype(kind)
            opt.accumulate(g)
            total = total + g.astype(dtype)
        opt.step()
        bare.step(dtype(1.0 / count) * total if reduction == "mean" else total)
        assert_same_bits(w, plain)
    assert opt.step_count == 3


def test_accumulated_gradients_wait_for_their_step():
    opt = fastopt.SGD(np.zeros(2), lr=1.0, zero_grad=True, nonfinite="raise")
    with refused(TypeError, "grads is missing, and nothing was accumulated", opt=opt):
        opt.step()
    opt.accumulate(np.ones(2))
    with refused(ValueError, "1 gradients were accumulated", opt=opt):
        opt.step(np.ones(2))
    with refused(ValueError, "grads must have the shape", opt=opt):
        opt.accumulate(np.ones(3))
    opt.step(scale=0.5)
    np.testing.assert_array_equal(opt.params, -0.5)
    opt.accumulate(np.array([np.nan, 0.0]))
    for _ in range(2):  # it is still there
        with refused(ValueError, "must be finite", opt=opt):
            opt.step()
    opt.discard()
    with refused(TypeError, "nothing was accumulated"):
        opt.step()
    opt.accumulate(np.ones(2))
    opt.load_state_dict(opt.state_dict())
    with refused(TypeError, "nothing was accumulated"):
        opt.step()


def test_a_group_that_thaws_meanwhile_has_nothing_to_step_with():
    opt = fastopt.SGD([{"params": np.zeros(2)}, {"params": np.zeros(1), "frozen": True}], lr=1.0)
    opt.accumulate([np.ones(2), None])
    opt.param_groups[1]["frozen"] = False
    with refused(ValueError, "nothing was accumulated for params[1]['params']", opt=opt):
        opt.step()
    opt.param_groups[1]["frozen"] = True
    opt.step()
    np.testing.assert_array_equal(opt.params[0], -1.0)


# Subnormal numbers


@pytest.mark.wide
@every_dtype
@pytest.mark.parametrize("optimizer", [fastopt.Adam, fastopt.AdaBelief, fastopt.Lion, fastopt.AdEMAMix, fastopt.Adan])
def test_no_state_is_ever_subnormal_and_all_else_keeps_its_bits(optimizer, dtype):
    tiny = np.finfo(dtype).tiny
    start = np.linspace(-1.0, 1.0, 64).astype(dtype)
    start[:8] *= tiny
    w, plain = start.copy(), start.copy()
    opt, bare = optimizer(w, lr=1e-3, flush_subnormals=True, ema_decay=0.5), optimizer(plain, lr=1e-3, ema_decay=0.5)
    g = np.geomspace(tiny, 1.0, 64).astype(dtype)
    was_subnormal = False
    differed = np.zeros(64, bool)  # where a state was flushed once, what follows from it may differ
    for step in range(60):
        each = g if step == 0 else np.zeros_like(g)
        opt.step(each)
        bare.step(each)
        for name, state in opt.state.items():
            assert not ((state != 0) & (np.abs(state) < tiny)).any(), name
            subnormal = (bare.state[name] != 0) & (np.abs(bare.state[name]) < tiny)
            was_subnormal |= subnormal.any()
            differed |= subnormal
            assert_same_bits(np.where(differed, 0, state).astype(dtype), np.where(differed, 0, bare.state[name]).astype(dtype))
        assert_same_bits(w[~differed], plain[~differed])
    assert was_subnormal
    assert not differed.all()


# Refusals


BAD = [
    ({"clip_norm": 0.0}, ValueError, "clip_norm must be None or a number of more than 0, got 0.0"),
    ({"clip_norm": np.nan}, ValueError, "clip_norm must be None or a number of more than 0"),
    ({"clip_norm": "x"}, TypeError, "clip_norm must be a real number"),
    ({"nonfinite": "ignore"}, ValueError, "nonfinite must be 'propagate' or 'skip' or 'raise', got 'ignore'"),
    ({"reduction": "max"}, ValueError, "reduction must be 'mean' or 'sum'"),
    ({"complex_mode": 1}, ValueError, "complex_mode must be 'parts' or 'modulus'"),
    ({"ema_decay": 1.5}, ValueError, "ema_decay must be None or in [0, 1], got 1.5"),
    ({"zero_grad": 1}, TypeError, "zero_grad must be True or False"),
    ({"flush_subnormals": None}, TypeError, "flush_subnormals must be True or False"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_bad_options_are_refused(options, error, words):
    with refused(error, words):
        fastopt.Adam(np.zeros(3), **options)


def test_bad_assignments_are_refused():
    opt = fastopt.Adam(np.zeros(3), clip_norm=1.0, nonfinite="skip")
    with refused(ValueError, "clip_norm must be", opt=opt):
        opt.clip_norm = -1.0
    with refused(ValueError, "nonfinite must be", opt=opt):
        opt.nonfinite = None
    assert (opt.clip_norm, opt.nonfinite) == (1.0, "skip")


def test_a_saved_whole_is_checked():
    opt = fastopt.SGD(np.zeros(1))
    for key, value, error in [("clip_norm", -1.0, ValueError), ("skipped_steps", "x", TypeError), ("nonfinite", 1, ValueError)]:
        blob = opt.state_dict()
        blob["whole"][key] = value
        with refused(error, f"state_dict['whole']['{key}']", opt=opt):
            opt.load_state_dict(blob)
