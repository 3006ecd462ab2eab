"""Checkpoints in files: going on with the same bits, arrays beside the optimizer, and what can not be saved or filled."""

import json
import os
import sys
import threading

import numpy as np
import pytest
from ml_dtypes import bfloat16

import fastopt
from fastopt import schedules
from fastopt.saving import checkpoints
from tests.refusal import refused
from tests.saving.test_checkpoint import assert_same_run, every_structure, run
from tests.stubborn import Stubborn
from tests.table import assert_same_bits, every_dtype, every_row


@pytest.mark.wide(by=lambda row, dtype, make: (row.rule, dtype, make))
@every_row
@every_dtype
@every_structure
def test_a_run_goes_on_with_the_same_bits(row, dtype, make, path):
    opt = row.make(make(dtype))
    run(opt, 4)
    fastopt.save(path, opt)
    run(opt, 3)
    resumed = row.make(make(dtype), lr=7.0)
    fastopt.load(path, resumed)
    assert resumed.step_count == 4
    run(resumed, 3)
    assert_same_run(resumed, opt)


def with_everything():
    """An optimizer with all that changes over the steps besides its arrays."""
    plateau = schedules.ReduceOnPlateau(0.1, patience=0)
    rate = schedules.Joined([schedules.Constant(0.5), schedules.Warmup(plateau, 2)], [2])
    params = {"W": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": [np.ones(3), np.zeros(2, np.complex64)]}
    options = {"ema_decay": schedules.BiasCorrected(0.9), "clip_norm": np.inf, "nonfinite": "skip"}
    return fastopt.NAdam(params, lr=rate, **options), plateau


def gradients(seed):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, 2)).astype(np.float32)
    return {"W": rng.standard_normal((3, 4), np.float32), "b": [rng.standard_normal(3), (parts[0] + 1j * parts[1])]}


def go_on(opt, plateau, seed):
    opt.step(gradients(seed))
    plateau.update(float(seed))
    opt.accumulate(gradients(seed + 1))
    opt.step()
    opt.step(map_nan(gradients(seed)))
    opt.accumulate(gradients(seed + 2))


def map_nan(grads):
    grads["W"][0, 0] = np.nan
    return grads


def test_schedules_averages_and_accumulated_gradients_go_on(path):
    opt, plateau = with_everything()
    for seed in (1, 5, 9):
        go_on(opt, plateau, seed)
        opt.discard()
    opt.accumulate(gradients(20))
    fastopt.save(path, opt)
    resumed, other = with_everything()
    resumed.accumulate(gradients(3))  # which is forgotten
    fastopt.load(path, resumed)
    assert (resumed.skipped_steps, resumed.step_count) == (3, 6)
    for each, of_it in ((opt, plateau), (resumed, other)):
        each.accumulate(gradients(21))
        each.step()
        go_on(each, of_it, 30)
        each.step()
    assert_same_run(resumed, opt)
    assert other.state_dict() == plateau.state_dict()


def test_accumulated_gradients_of_some_groups(path):
    def make():
        return fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(2, np.float32), "frozen": True}])

    opt, resumed = make(), make()
    opt.accumulate([np.ones(3), None])
    fastopt.save(path, opt)
    fastopt.load(path, resumed)
    for each in (opt, resumed):
        each.accumulate([np.full(3, 2.0), None])
        each.step()
    np.testing.assert_allclose(opt.params[0], 1.0 - 1e-3 * 1.5)
    assert_same_run(resumed, opt)


def test_copies_are_brought_up_to_date(path):
    def make(value):
        return fastopt.SGD(np.full(3, value), copy_to=(half := np.zeros(3, np.float16))), half

    (opt, _), (resumed, half) = make(2.0), make(5.0)
    fastopt.save(path, opt)
    fastopt.load(path, resumed)
    np.testing.assert_array_equal(half, 2.0)


def test_arrays_beside_the_optimizer(path):
    weights = {"W": np.arange(6.0).reshape(2, 3), "layers": [np.arange(8, dtype=np.float32)[::2]]}
    half, seed = np.array([1.5, -2.0], bfloat16), np.random.default_rng(7).integers(0, 2**63, 4)
    fastopt.save(path, params=weights, half=half, seed=seed, flat=fastopt.flatten([np.ones(2)]), none=np.zeros((0, 3), bool))
    with np.load(path) as file:
        np.testing.assert_array_equal(file["params['W']"], weights["W"])
        np.testing.assert_array_equal(file["params['layers'][0]"], [0, 2, 4, 6])
        assert json.loads(file["description.json"])["format"] == "fastopt checkpoint"
    into = {"W": np.zeros((2, 3), order="F"), "layers": [np.zeros(8, np.float32)[::2]]}
    halved, seeded, flat = np.zeros(2, bfloat16), np.zeros(4, np.int64), fastopt.flatten([np.zeros(2)])
    fastopt.load(path, params=into, half=halved, seed=seeded, flat=flat)
    np.testing.assert_equal([into["W"], into["layers"][0], seeded, flat.buffer], [weights["W"], [0, 2, 4, 6], seed, [1.0, 1.0]])
    assert halved.tobytes() == half.tobytes()


def test_numbers_are_saved_as_arrays(path):
    fastopt.save(path, epoch=3, loss=0.5, last=np.float32(2), both=[1, 2.0])
    filled = {
        "epoch": np.array(0),
        "loss": np.array(0.0),
        "last": np.zeros((), np.float32),
        "both": [np.array(0), np.array(0.0)],
    }
    fastopt.load(path, **filled)
    np.testing.assert_equal(filled, {"epoch": 3, "loss": 0.5, "last": 2, "both": [1, 2.0]})


def small():
    opt = fastopt.Adam({"W": np.ones((2, 3), np.float32), "b": np.ones(2)})
    run(opt, 2)
    return opt


def test_what_is_to_be_filled_must_fit(path):
    opt = small()
    fastopt.save(path, opt, more=np.arange(3))
    with pytest.raises(FileNotFoundError):
        fastopt.load(path.with_name("other"), opt)
    read_only = np.zeros(3, np.int64)
    read_only.flags.writeable = False
    for error, words, named in [
        (ValueError, ["nothing"], {}),
        (ValueError, ["has no array 'params'"], {"params": np.zeros(3)}),
        (ValueError, ["has no array 'others'"], {"others": np.zeros(3)}),
        (TypeError, ["more must be of int64", "float64"], {"more": np.zeros(3)}),
        (ValueError, ["more must have the shape (3,)", "(4,)"], {"more": np.zeros(4, np.int64)}),
        (ValueError, ["more is read-only"], {"more": read_only}),
        (TypeError, ["more must be a NumPy array, got int"], {"more": 3}),
        (ValueError, ["letters", "'a b'"], {"a b": np.zeros(3)}),
    ]:
        with refused(error, *words, opt=opt):
            fastopt.load(path, **named)
    fastopt.save(path, params=np.zeros(3))
    with refused(ValueError, "has no optimizer"):
        fastopt.load(path, fastopt.SGD(np.zeros(3)), params=np.zeros(3))


class Remembering:
    def __call__(self, step):
        return 0.5

    def state_dict(self):
        return {"what": object()}

    def load_state_dict(self, state):
        raise AssertionError


def test_what_can_not_be_saved_leaves_the_old_checkpoint(path):
    fastopt.save(path, small())
    before = path.read_bytes()
    for error, words, named in [
        (TypeError, ["optimizer/progress/0/schedules/lr/what"], {"opt": fastopt.SGD(np.zeros(1), lr=Remembering())}),
        (TypeError, ["text must hold numbers"], {"text": np.array(["a"])}),
        (TypeError, ["text must be a NumPy array, got str"], {"text": "a"}),
        (TypeError, ["objects must hold numbers"], {"objects": np.array([None])}),
        (ValueError, ["nothing to save"], {}),
    ]:
        with refused(error, *words):
            fastopt.save(path, **named)
        with refused(error, *words):
            fastopt.save_async(path, **named)
    swapped = fastopt.SGD(np.zeros(1), ema_decay=0.5)
    with swapped.swap_ema(), pytest.raises(RuntimeError, match="swapped"):
        fastopt.save(path, swapped)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_a_schedule_remembers_keeps_its_kind(path):
    class Keeping(Remembering):
        value = None

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    for value in [(1, [2.5, None]), {1: "a", (2, "$b"): True}, {"$array": "x"}, np.arange(3.0), np.nan, "\ud800", -(10**30)]:
        schedule, other = Keeping(), Keeping()
        schedule.value = value
        fastopt.save(path, fastopt.SGD(np.zeros(1), lr=schedule))
        fastopt.load(path, fastopt.SGD(np.zeros(1), lr=other))
        np.testing.assert_equal(other.value, value)
        assert type(other.value) is type(value)


def test_asynchronous_checkpoints_have_what_was_there_at_the_call(path):
    opt, twin = small(), small()
    first = fastopt.save_async(path, opt)
    run(opt, 1)
    second = fastopt.save_async(path, opt, keep_previous=True)
    run(opt, 1)
    opt.params["W"][...] = np.nan
    for future in (first, second):
        assert future.result(timeout=60) is None
    for name, steps in ((path.name + ".previous", 0), (path.name, 1)):
        into = small()
        fastopt.load(path.with_name(name), into)
        run(twin, steps)
        assert_same_run(into, twin)
    missing = fastopt.save_async(path / "folder" / "run.npz", opt)
    with pytest.raises(OSError, match=r"run\.npz"):
        missing.result(timeout=60)


@pytest.mark.parametrize("options", [{}, {"master_weights": True}, {"rounding": "stochastic"}], ids=str)
def test_parameters_of_16_bits_go_on_with_what_was_accumulated(options, path):
    g = np.linspace(0.0, 1.0, 6, dtype=np.float32)
    opts = [fastopt.Adam(np.ones(6, np.float16), lr=0.1, **options) for _ in range(2)]
    opts[0].step(g)
    opts[0].accumulate(g)
    fastopt.save(path, opts[0])
    fastopt.load(path, opts[1])
    for opt in opts:
        opt.step()
    assert_same_bits(*(opt.params for opt in opts))


def test_who_writes_in_the_background_gives_way_to_those_who_step():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here, there = niceness(), checkpoints._background.submit(niceness).result()
    assert there == (min(here + 8, 19) if sys.platform == "linux" else here)


def test_arrays_of_other_classes_are_filled(path):
    fastopt.save(path, lengths=np.arange(3.0))
    fastopt.load(path, lengths=(lengths := np.zeros(3).view(Stubborn)))
    assert lengths.tolist() == [0.0, 1.0, 2.0]
