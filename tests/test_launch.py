"""How a launcher chooses between all threads and one: by what launches took, on a clock of the test's own."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt.engine import kernel, launch
from fastopt.engine.compile import Variant
from fastopt.optimizers.sgd import gradient_descent


class Machine:
    """A kernel that takes as long as the test says for each number of threads, and a clock that knows it."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 0.0
        self.threads = []

    def kernel(self, threads):
        self.threads.append(threads)
        self.now += self.seconds[threads]

    def perf_counter(self):
        return self.now


@pytest.fixture
def machine(monkeypatch):
    fastopt.set_num_threads(2)
    machine = Machine({1: 2e-3, 2: 1e-3})
    monkeypatch.setattr(launch.time, "perf_counter", machine.perf_counter)
    return machine


def steps(machine, launcher, n):
    """The numbers of threads of the next n launches."""
    machine.threads.clear()
    for _ in range(n):
        launcher()
    return list(machine.threads)


PHASE, TRIAL = launch.SHORTEST_PHASE, launch.TRIAL


def test_all_threads_stay_while_they_are_faster_and_trials_become_rare(machine):
    launcher = launch.Launcher(machine.kernel)
    for phase in (PHASE, 2 * PHASE, 4 * PHASE):
        assert steps(machine, launcher, phase + TRIAL) == [2] * phase + [1] * TRIAL
    used = steps(machine, launcher, 10_000)
    assert used.count(1) / len(used) < 0.005


def test_one_thread_takes_over_while_the_others_are_busy_and_hands_back(machine):
    launcher = launch.Launcher(machine.kernel)
    machine.seconds[2] = 6e-3
    assert steps(machine, launcher, PHASE + TRIAL) == [2] * PHASE + [1] * TRIAL
    assert steps(machine, launcher, PHASE) == [1] * PHASE
    machine.seconds[2] = 1e-3
    assert steps(machine, launcher, TRIAL + PHASE) == [2] * (TRIAL + PHASE)


def test_little_better_is_not_worth_a_change(machine):
    launcher = launch.Launcher(machine.kernel)
    machine.seconds[1] = 0.95e-3
    assert steps(machine, launcher, PHASE + TRIAL + PHASE)[-PHASE:] == [2] * PHASE


def test_one_thread_hands_back_after_a_long_time_too(machine):
    launcher = launch.Launcher(machine.kernel)
    machine.seconds[2] = 6e-3
    assert set(steps(machine, launcher, 20_000)[-200:]) <= {1, 2}
    machine.seconds[2] = 1e-3
    used = steps(machine, launcher, 2 * (launch.LONGEST_PHASE + TRIAL))
    assert used[-PHASE:] == [2] * PHASE


def test_large_arrays_are_never_tried_on_one_thread(machine, monkeypatch):
    monkeypatch.setattr(kernel, "entry_point", lambda variant: lambda *arguments: machine.kernel(arguments[-1]))
    variant = Variant(gradient_descent, np.dtype("f4"), np.dtype("f4"), (), (), lr_is_array=False)
    size = launch.NO_TRIAL_FROM_BYTES // variant.bytes_per_element
    for elements, tries in ((size - 1, True), (size + 1, False)):
        run, _ = kernel.Kernel(variant, elements).prepare()
        assert (1 in steps(machine, run, 20 * PHASE)) is tries


def test_the_first_launch_does_not_count(machine):
    launcher = launch.Launcher(machine.kernel)
    machine.seconds[2] = 1.0  # pages are touched for the first time, threads start
    steps(machine, launcher, 1)
    machine.seconds[2] = 1e-3
    steps(machine, launcher, PHASE - 1 + TRIAL)
    assert steps(machine, launcher, PHASE) == [2] * PHASE
