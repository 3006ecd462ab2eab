"""The plan knows of everything that a step goes through: nothing is read that is gone, and nothing that changed is missed."""

from collections.abc import Mapping

import numpy as np
import pytest

import fastopt
from fastopt.engine.steps import SHORT_BYTES, STRIDE
from fastopt.step.plan import Plan
from tests.refusal import refused
from tests.table import assert_same_bits


class Lazy(Mapping):
    """A container that makes its arrays when it is asked."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def __getitem__(self, key):
        return self.arrays[key] * np.float32(1)

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)


def allocating(hyper, t):
    """Coefficients that take up memory that was given back."""
    return [np.full(4, 7.0, np.float32) for _ in range(50)] and ()


class Allocating(fastopt.SGD):
    def coefficients(self, hyper, t):
        return allocating(hyper, t)


def test_gradients_that_are_made_for_a_step_live_as_long():
    w = np.zeros(300_000, np.float32)
    opt = fastopt.SGD({"w": w}, lr=1.0)
    for _ in range(5):
        opt.step(Lazy(w=np.ones(300_000, np.float32)))
    np.testing.assert_array_equal(w, -5.0)
    number = np.array(0.0, np.float32)
    opt = Allocating(number, lr=1.0)
    for _ in range(5):
        opt.step(np.float32(1.0))
    assert number == -5.0


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_masks_and_rates_of_complex_numbers_stay_where_the_plan_has_them(dtype):
    w = np.zeros(1000, dtype)
    opt = fastopt.SGD(w, lr=lambda step: 1.0, mask=np.ones(1000, bool), weight_decay=0.1)
    g = np.ones(1000, dtype)
    opt.step(g)
    opt.weight_decay = 0.0  # another pass
    opt.weight_decay = 1e-9
    opt.weight_decay = 2e-9  # other numbers for the same
    for _ in range(3):
        opt.step(g)
    np.testing.assert_allclose(w, -4.0, rtol=1e-6)


def test_what_is_accumulated_while_groups_are_frozen_is_theirs_alone():
    a, b = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": a}, {"params": b}], lr=1.0, reduction="sum")
    one, second = np.ones(2), opt.param_groups[1]
    opt.accumulate([one, one])
    opt.accumulate([one, one])
    second["frozen"] = True
    opt.accumulate([one, None])
    second["frozen"] = False
    opt.step()
    np.testing.assert_array_equal([a, b], [[-3.0] * 2, [-2.0] * 2])
    opt.accumulate([one, one])
    second["frozen"] = True
    opt.accumulate([one, None])
    second["frozen"] = False
    opt.accumulate([one, one])
    opt.step()
    np.testing.assert_array_equal([a, b], [[-6.0] * 2, [-4.0] * 2])


def test_a_group_that_is_added_later_is_scaled_too():
    a, b = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": a}], lr=1.0)
    opt.step([np.ones(2)], scale=0.5)
    opt.add_param_group({"params": b})
    opt.step([np.ones(2), np.ones(2)])
    opt.step([np.ones(2), np.ones(2)], scale=0.5)
    np.testing.assert_array_equal([a, b], [[-2.0] * 2, [-1.5] * 2])


def test_schedules_can_move_from_group_to_group():
    a, b = np.zeros(3), np.zeros(3)
    opt = fastopt.SGD([{"params": a, "lr": lambda step: 1.0}, {"params": b, "lr": 1.0}])
    opt.step([np.ones(3), np.ones(3)])
    opt.param_groups[0]["lr"] = 0.5
    opt.param_groups[1]["lr"] = lambda step: 0.25
    opt.param_groups[1]["clip_norm"] = lambda step: 0.5 * np.sqrt(3.0)
    opt.step([np.ones(3), np.ones(3)])
    np.testing.assert_allclose([a, b], [[-1.5] * 3, [-1.125] * 3])


def test_schedules_are_called_once_a_step():
    calls = []

    def rate(step):
        calls.append(step)
        return 1.0

    opt = fastopt.SGD([{"params": np.zeros(3), "lr": rate}, {"params": np.zeros(2), "lr": rate}])
    for _ in range(3):
        opt.step([np.ones(3), np.ones(2)])
        opt.param_groups[0]["momentum"] = 0.0
    assert calls == [0, 1, 2]


def test_a_step_that_is_taken_in_the_middle_of_another_one_comes_first(monkeypatch):
    g = {"w": np.ones(4)}  # which is collected in Python
    expected, opt = (fastopt.Adam({"w": np.zeros(4)}, lr=lambda step: 0.1 / (1 + step)) for _ in range(2))
    for _ in range(3):
        expected.step(g)
    opt.step(g)
    run, inner = Plan.run, []

    def interrupted(plan, *arguments):
        if not inner:
            inner.append(True)
            opt.step(g)
        return run(plan, *arguments)

    monkeypatch.setattr(Plan, "run", interrupted)
    opt.step(g)
    assert opt.step_count == 3
    np.testing.assert_array_equal(opt.params["w"], expected.params["w"])


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        *((each, {"lr": lambda step: 0.5, "weight_decay": lambda step: 0.1}) for each in (fastopt.LAMB, fastopt.LARS)),
        *((each, {}) for each in (fastopt.LAMB, fastopt.DoG, fastopt.Prodigy)),
        (fastopt.Adam, {"clip_norm": 1.0, "nonfinite": "skip"}),
        (fastopt.Adam, {"cautious": True, "lr": lambda step: 0.5, "weight_decay": lambda step: 0.1}),
    ],
)
def test_a_group_may_be_empty(optimizer, options):
    w, lone = np.ones(3), np.ones(3)
    opt, expected = optimizer([{"params": []}, {"params": w}], **options), optimizer([{"params": lone}], **options)
    for _ in range(2):
        opt.step([[], np.ones(3)])
        expected.step([np.ones(3)])
    np.testing.assert_array_equal(w, lone)
    assert opt.param_groups[0].step_count == 2


@pytest.mark.parametrize(("optimizer", "options"), [(fastopt.LAMB, {}), (fastopt.Adam, {"cautious": True})])
def test_arrays_with_numbers_of_their_own_step_as_each_would_alone(optimizer, options):
    options = {**options, "lr": lambda step: 0.5 / (1 + step), "weight_decay": lambda step: 0.1 * (1 + step)}
    arrays = [np.linspace(1.0, 2.0, size) for size in (3, 5)]
    grads = [np.linspace(-1.0, 3.0 + size, size) for size in (3, 5)]
    together, alone = optimizer([w.copy() for w in arrays], **options), [optimizer(w.copy(), **options) for w in arrays]
    for _ in range(2):
        together.step(grads)
        for each, g in zip(alone, grads, strict=True):
            each.step(g)
    for w, each in zip(together.params, alone, strict=True):
        assert_same_bits(w, each.params)


def test_all_groups_may_be_frozen():
    opt = fastopt.SGD([{"params": np.ones(3), "frozen": True}], clip_norm=1.0)
    opt.accumulate([None])
    opt.discard()
    opt.step([None])
    assert (opt.step_count, opt.grad_norm) == (1, 0.0)


@pytest.mark.parametrize(
    ("params", "grads"), [(np.ones(2), [np.ones(2)]), ([np.ones(2)], np.ones(2)), ([{"params": np.ones(2)}], np.ones(2))]
)
def test_gradients_are_nested_as_the_parameters(params, grads):
    opt = fastopt.SGD(params)
    with refused(TypeError, "grads must be ", opt=opt):
        opt.step(grads)


@pytest.mark.parametrize("bad", [None, "a", 1j, np.ones(3), 10**400])
def test_coefficients_that_go_bad_are_refused(bad):
    class Turning(fastopt.SGD):
        def coefficients(self, hyper, t):
            return (0.9 if t < 3 else bad, *super().coefficients(hyper, t)[1:])

    opt = Turning(np.ones(4), momentum=0.9)
    for _ in range(2):
        opt.step(np.ones(4))
    with refused(TypeError, "coefficients must be ", opt=opt):
        opt.step(np.ones(4))


@pytest.mark.parametrize("bad", [[0.0], (0,), (None,)])
def test_coefficients_are_numbers_in_a_tuple_from_the_first_step_on(bad):
    class Own(fastopt.SGD):
        def coefficients(self, hyper, t):
            return bad

    with refused(TypeError, "coefficients must be a tuple of floats, got", opt=(opt := Own(np.ones(4), momentum=0.9))):
        opt.step(np.ones(4))


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_all_of_the_traffic_at_the_end_of_a_long_step(options, threads):
    opt = fastopt.SGD([np.ones(size, np.float32) for size in (3 * STRIDE // 2, 70_001, 0)], threads=threads, **options)
    for _ in range(2):
        opt.step([w.copy() for w in opt.params])
        assert opt.progress is None  # for nobody steps
    busy = opt._model.memory.busy
    busy[0] = opt._stepping.plan._address
    assert opt.progress == pytest.approx(1.0, abs=0.01)
    busy[0] = 1  # the address of another plan
    assert opt.progress is None
    busy[0] = 0


def test_a_short_step_has_no_progress():
    ones = np.ones(SHORT_BYTES // 16, np.float32)  # the rate and the gradient are read, theta is read and written
    opt = fastopt.SGD(ones.copy(), lr=ones)
    assert opt.progress is None
    opt.step(ones)
    opt._model.memory.busy[0] = opt._stepping.plan._address
    assert opt.progress is None


def test_a_gradient_of_zeros_has_a_norm_of_zero():
    opt = fastopt.SGD([np.ones(3), np.ones(0)], clip_norm=1.0)
    opt.step([np.zeros(3), np.ones(0)])
    assert opt.grad_norm == 0.0
    opt.step([np.full(3, 1e-200), np.ones(0)])
    assert opt.grad_norm == pytest.approx(np.sqrt(3) * 1e-200)
