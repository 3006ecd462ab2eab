"""Code of the caller's inside of a step, and what callers do to arrays and containers behind the optimizer's back."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from numba.core.compiler_lock import global_compiler_lock

import fastopt
from fastopt.engine import compile as engine_compile
from fastopt.optimizers.sgd import gradient_descent
from tests import fresh
from tests.refusal import refused


class Own(fastopt.Optimizer):
    """Gradient descent with coefficients that a test chooses."""

    def __init__(self, params, given=()):
        self.given = given
        super().__init__(params, lr=0.1)

    def choose(self, hyper):
        return gradient_descent, ()

    def coefficients(self, hyper, t):
        return self.given if t > 1 else ()


@pytest.mark.parametrize("given", [[], None, (1.0,), ("1",), (1j,)])
def test_wrong_coefficients_change_nothing(given):
    opt = Own([{"params": np.ones(3)}, {"params": np.ones(2)}])
    opt.step([np.ones(3), np.ones(2)])
    opt.given = given
    with refused((TypeError, ValueError), opt=opt):
        opt.step([np.ones(3), np.ones(2)])


def test_attributes_of_a_subclass_are_copied():
    opt = Own(np.ones(3), given=())
    opt.note = ["anything"]
    for other in (copy.copy(opt), copy.deepcopy(opt)):
        other.step(np.ones(3))
        assert (other.note, other.given) == (["anything"], ())


def test_a_schedule_may_change_the_optimizer():
    w, expected = np.ones(3), np.ones(3)
    opt = fastopt.SGD(w, momentum=0.9)

    def lr(step):
        opt.param_groups[0]["momentum"] = 0.5 if step else 0.0
        return 0.1

    opt.lr = lr
    reference = fastopt.SGD(expected, lr=0.1, momentum=0.9)
    for momentum in (0.0, 0.5, 0.5):
        reference.param_groups[0]["momentum"] = momentum
        reference.step(np.ones(3))
        opt.step(np.ones(3))
    assert np.array_equal(w, expected)


def test_a_schedule_that_shrinks_the_gradient_is_noticed():
    g = np.ones(1000)
    opt = fastopt.SGD(np.ones(1000), lr=lambda step: g.resize(1, refcheck=False) or 1.0)
    with refused(ValueError, "grads must have the shape (1000,)", opt=opt):
        opt.step(g)


def test_one_schedule_of_several_groups_is_called_once_a_step():
    calls = []
    opt = fastopt.SGD([{"params": np.ones(2)}, {"params": np.ones(3)}], lr=lambda step: calls.append(step) or 0.1)
    for _ in range(3):
        opt.step([np.ones(2), np.ones(3)])
    assert calls == [0, 1, 2]


class Liar(np.ndarray):
    @property
    def shape(self):
        return (1000,)


def test_a_subclass_can_not_lie_about_its_shape():
    opt = fastopt.SGD(np.ones(1000))
    with refused(ValueError, "shape", opt=opt):
        opt.step(np.ones(2).view(Liar))
    assert fastopt.SGD(np.ones(2).view(Liar)).state_dict()["step_count"] == 0


def test_containers_that_are_handed_out_are_not_the_optimizers_own():
    x, y = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD({"a": x, "b": y}, lr=1.0)
    for params in (opt.params, opt.param_groups[0]["params"]):
        params["a"] = params.pop("a")
    opt.step({"a": np.full(2, 1.0), "b": np.full(2, 5.0)})
    assert (x[0], y[0]) == (-1.0, -5.0)
    with pytest.raises(TypeError):
        opt.state["m"] = 1
    with pytest.raises(AttributeError):
        opt.param_groups.append({})


def test_a_parameter_may_be_reshaped_meanwhile():
    w = np.zeros((2, 3))
    opt = fastopt.Adam(w)
    opt.step(np.ones((2, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer versions of NumPy
        w.shape = (6,)
    opt.step(np.ones((3, 2)).T)
    assert opt.state["m"].shape == (2, 3)
    assert np.all(w < 0)


def test_optimizers_and_gradients_are_freed_at_once():
    gc.disable()
    try:
        w, g = np.ones(5), np.ones((2, 5))
        opt = fastopt.Adam(w)
        view = g[1]
        opt.step(view)
        gradient, optimizer, state = weakref.ref(view), weakref.ref(opt), weakref.ref(opt.state["m"].base)
        del view
        assert gradient() is None
        del opt
        assert optimizer() is None
        assert state() is None
    finally:
        gc.enable()


def test_a_group_does_not_keep_its_optimizer():
    optimizer = fastopt.SGD(np.ones(3))
    optimizer.step(np.ones(3))
    (group,), gone = optimizer.param_groups, weakref.ref(optimizer)
    del optimizer
    assert gone() is None
    group["lr"] = 1.0  # which moves nothing any more
    assert group["lr"] == 1.0


def test_keys_with_the_same_repr_are_refused():
    class Key:
        def __repr__(self):
            return "key"

    with refused(ValueError, "same repr"):
        fastopt.SGD({Key(): np.ones(2), Key(): np.ones(3)})


def test_a_state_dict_may_hold_views_of_the_state_that_it_replaces():
    opt = fastopt.Adam(np.ones(3))
    opt.step(np.full(3, 2.0))
    m, v = opt.state["m"], opt.state["v"]
    saved = opt.state_dict()
    before_m, before_v = m.copy(), v.copy()
    saved["state"] = {"m": {"params": v}, "v": {"params": m}}
    opt.load_state_dict(saved)
    assert np.array_equal(m, before_v)
    assert np.array_equal(v, before_m)


def test_a_flat_goes_through_pickle_with_its_optimizer():
    flat = fastopt.flatten({"W": np.ones(3)})
    model, opt = pickle.loads(pickle.dumps((flat, fastopt.SGD(flat, lr=1.0))))
    opt.step(np.ones(3))
    assert np.array_equal(model["W"], np.zeros(3))


def test_fork_while_another_thread_compiles(tmp_path: Path):
    result = fresh.run(
        """
import threading
def compile_much():
    for cls in (fastopt.SGD, fastopt.AdaGrad):
        for dtype in ("float32", "float64"):
            run(dtype, cls=cls)
thread = threading.Thread(target=compile_much)
thread.start()
children = []
while thread.is_alive() and len(children) < 4:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this test is about
        pid = os.fork()
    if pid == 0:
        try:
            run("float32", cls=fastopt.Adam)
        finally:
            os._exit(0)
    children.append(os.waitpid(pid, 0)[1])
thread.join()
report(children=children)
""",
        tmp_path,
        NUMBA_CACHE_DIR=fresh.with_engine(tmp_path / "cache"),
    )
    assert result["children"]
    assert set(result["children"]) == {0}


def test_an_environment_in_which_numba_can_not_run_is_an_error_without_a_wrong_hint(tmp_path: Path):
    result = fresh.run(
        """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        run(size=1_000_000)
        message = ""
    except (ValueError, RuntimeError) as error:
        message = str(error)
report(message=message, warnings=[str(c.message) for c in caught])
""",
        tmp_path,
        NUMBA_THREADING_LAYER="tbb",
        NUMBA_NUM_THREADS="2",
    )
    assert result["message"]
    assert not [text for text in result["warnings"] if "NUMBA_CACHE_DIR" in text]


def test_a_fork_waits_while_a_kernel_is_made(monkeypatch):
    # Numba holds its lock while it compiles. What it does before takes locks that no child could release.
    held = []
    cache_of = engine_compile.cache_of
    monkeypatch.setattr(
        engine_compile, "cache_of", lambda span: held.append(global_compiler_lock.is_locked()) or cache_of(span)
    )
    floats = np.dtype(np.float32)
    engine_compile.compile_span(engine_compile.Variant(gradient_descent, floats, floats, (), (None,)))
    assert held == [True]
