"""What else surrounds the update in a training step: zeroed gradients, micro-batches, subnormal numbers, bad options."""

import numpy as np
import pytest

import fastopt
from fastopt.step.stepping import Stepping
from tests.refusal import refused
from tests.stubborn import Stubborn
from tests.table import assert_same_bits, every_dtype

# Zeroed gradients


@every_dtype
def test_gradients_are_zeroed_wherever_they_lie(dtype):
    w = [np.zeros((3, 4)), np.zeros(()), np.zeros(5), np.zeros(0)]
    grads = [np.ones((4, 3), dtype).T, np.ones((), dtype), np.ones(10, dtype)[::2], np.ones(0, dtype)]
    opt = fastopt.SGD(w, lr=1.0, zero_grad=True)
    opt.step(grads)
    assert all((p == -1).all() for p in w)
    assert not any(g.any() for g in grads)


def test_so_are_those_of_classes_that_refuse_zeros():
    opt = fastopt.SGD(w := np.zeros((3, 4)), lr=1.0, zero_grad=True)
    opt.step(g := np.ones((4, 3)).T.view(Stubborn))
    assert (w == -1).all()
    assert not g.any()


def test_they_are_zeroed_when_they_were_taken_and_not_when_a_step_of_a_signal_handler_came_first(monkeypatch):
    opt = fastopt.SGD(w := np.zeros((3, 4)), lr=1.0, zero_grad=True)
    opt.step(np.ones((3, 4)))
    write = Stepping._write

    def interrupted(*arguments):
        monkeypatch.undo()
        opt.step(np.full((3, 4), 2.0))
        write(*arguments)

    monkeypatch.setattr(Stepping, "_write", interrupted)
    opt.step(g := np.ones((4, 3)).T)
    assert (w == -4).all()
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
