"""Averages of parameters: those of other libraries, swapped with the parameters for a while, and resumed."""

import pickle
import threading

import numpy as np
import pytest

import fastopt
from fastopt.schedules import BiasCorrected, PlainAverage
from fastopt.step import averages
from fastopt.step.plans import Plans
from tests.refusal import refused
from tests.table import assert_same_bits


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


def test_they_go_back_when_another_thread_has_computed_its_norm():
    opt = fastopt.SGD(w := np.ones(3), lr=1.0, ema_decay=0.5)
    opt.step(np.ones(3))
    busy = opt._model.memory.busy
    ending = threading.Timer(0.05, busy.fill, [0])
    with opt.swap_ema():
        busy[0] = 1  # as if another thread were in the midst of it
        ending.start()
    assert (w.tolist(), opt.ema.tolist()) == ([0.0] * 3, [0.5] * 3)
    opt.step(np.ones(3))


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
