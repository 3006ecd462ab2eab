"""How many threads a kernel is launched on: by what launches took, on a clock of the test's own."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

import fastopt
from fastopt.engine import launch, runtime
from fastopt.engine.launch import Launch
from fastopt.engine.steps import nothing

PHASE, SAMPLE = launch.SHORTEST_PHASE, launch.SAMPLE
LARGE = launch.ALONE_FIRST_BELOW_BYTES + 1  # bytes
MEDIUM = LARGE // 4


class Machine:
    """Takes as long as the test says for each number of threads, and to wake them; and has a clock that knows it."""

    def __init__(self, seconds, waking=2e-6):
        self.seconds = seconds
        self.waking = waking
        self.now = 0.0
        self.threads = []  # of each launch
        self.compiled = []

    def step_function(self, parallel):
        self.compiled.append("parallel" if parallel else "serial")

        def step(threads, *arguments):
            if arguments == nothing():
                self.now += self.waking
                return
            self.threads.append(threads)
            self.now += self.seconds[threads]

        return step

    def used(self, of, launches):
        """The numbers of threads of the next launches."""
        self.threads.clear()
        for _ in range(launches):
            (of.run or of.prepare())()
        return list(self.threads)


@pytest.fixture
def machine(monkeypatch):
    fastopt.set_num_threads(2)
    machine = Machine({1: 2e-3, 2: 1e-3, 4: 1.5e-3})
    monkeypatch.setattr(launch.time, "perf_counter", lambda: machine.now)
    monkeypatch.setattr(launch, "_launch_seconds", {})
    monkeypatch.setattr(launch, "step_function", machine.step_function)
    return machine


def test_all_threads_stay_while_they_are_faster_and_trials_become_rare(machine):
    large = Launch(LARGE)
    for phase in (PHASE, SAMPLE / launch.TRIAL_SHARE):  # a trial loses as much time as its launches take on all threads
        assert machine.used(large, int(phase) + SAMPLE) == [2] * int(phase) + [1] * SAMPLE
    used = machine.used(large, 10_000)
    assert used.count(1) < 1.5 * SAMPLE * len(used) / launch.LONGEST_PHASE
    assert machine.compiled == ["serial", "parallel"]


def test_trials_that_lose_little_become_rare_more_slowly(machine):
    large = Launch(LARGE)
    machine.seconds[1] = 1.001e-3
    for phase in (PHASE, 2 * PHASE, 4 * PHASE):
        assert machine.used(large, phase + SAMPLE) == [2] * phase + [1] * SAMPLE


def test_a_core_that_becomes_busy_is_noticed_at_once_and_costs_little(machine):
    machine.seconds = {1: 12e-6, 2: 7e-6}
    medium = Launch(MEDIUM)
    assert machine.used(medium, 5_000)[-10:] == [2] * 10
    machine.seconds[2] = 8e-3  # a turn of the scheduler
    used = machine.used(medium, 1_000)
    assert used.count(2) < 2 * (launch.SLOW + SAMPLE)
    begin = machine.now
    machine.used(medium, 1_000_000)
    assert (machine.now - begin) / 1_000_000 < 1.1 * machine.seconds[1]
    machine.seconds[2] = 7e-6
    machine.used(medium, 50_000)
    assert machine.used(medium, 10) == [2] * 10


def test_one_thread_takes_over_while_the_others_are_busy_and_hands_back(machine):
    large = Launch(LARGE)
    machine.seconds[2] = 6e-3
    assert machine.used(large, PHASE + SAMPLE) == [2] * PHASE + [1] * SAMPLE
    assert machine.used(large, PHASE) == [1] * PHASE
    machine.seconds[2] = 1e-3
    assert machine.used(large, SAMPLE + PHASE) == [2] * (SAMPLE + PHASE)


def test_little_better_is_not_worth_a_change(machine):
    large = Launch(LARGE)
    machine.seconds[1] = 0.97e-3
    assert machine.used(large, PHASE + SAMPLE + PHASE)[-PHASE:] == [2] * PHASE


def test_one_thread_hands_back_after_a_long_time_too(machine):
    large = Launch(LARGE)
    machine.seconds[2] = 6e-3
    assert set(machine.used(large, 20_000)[-200:]) <= {1, 2}
    machine.seconds[2] = 1e-3
    used = machine.used(large, 2 * (launch.LONGEST_PHASE + SAMPLE))
    assert used[-PHASE:] == [2] * PHASE


def test_single_slow_launches_do_not_count(machine):
    large = Launch(LARGE)
    for slow in (0, PHASE - 1):  # pages are touched for the first time, threads start; another process has its turn
        machine.used(large, slow)
        machine.seconds[2] = 1.0
        machine.used(large, 1)
        machine.seconds[2] = 1e-3
        machine.used(large, PHASE + SAMPLE - slow - 1)
        assert machine.used(large, PHASE) == [2] * PHASE
        large = Launch(LARGE)


def test_very_large_arrays_are_never_tried_on_one_thread(machine):
    size = launch.NO_TRIAL_FROM_BYTES
    for elements, tries in ((size - 1, True), (size + 1, False)):
        assert (1 in machine.used(Launch(elements), 20 * PHASE)) is tries


def test_tiny_arrays_are_stepped_without_looking_at_the_clock(machine):
    tiny = Launch(launch.SERIAL_BELOW_BYTES - 1)
    assert machine.used(tiny, 100) == [1] * 100
    assert machine.compiled == ["serial"]
    assert not isinstance(tiny.run, launch.Sampled | launch.Launcher)


def test_what_is_short_on_one_thread_stays_there_for_ever(machine):
    medium = Launch(MEDIUM)
    machine.seconds[1] = 0.9 * launch.SERIAL_BELOW_SECONDS
    assert machine.used(medium, 100) == [1] * 100
    assert set(machine.compiled) == {"serial"}
    assert not isinstance(medium.run, launch.Sampled | launch.Launcher)


def test_what_is_long_on_one_thread_is_tried_on_all_at_once(machine):
    medium = Launch(MEDIUM)
    assert machine.used(medium, SAMPLE + SAMPLE + PHASE) == [1] * SAMPLE + [2] * (SAMPLE + PHASE)
    assert machine.compiled == ["serial", "serial", "parallel"]


def test_one_thread_keeps_what_others_are_slower_at(machine):
    medium = Launch(MEDIUM)
    machine.seconds[2] = 3e-3
    assert machine.used(medium, SAMPLE + SAMPLE + PHASE) == [1] * SAMPLE + [2] * SAMPLE + [1] * PHASE


def test_the_parallel_kernel_is_compiled_before_a_step_launches_anything(machine):
    medium = Launch(MEDIUM)
    machine.used(medium, SAMPLE)
    machine.threads.clear()
    medium.prepare()
    assert machine.compiled[-1] == "parallel"
    assert machine.threads == []


@pytest.mark.parametrize(("work", "best"), [(10e-6, 2), (40e-6, 4)])
def test_the_first_trial_is_with_the_best_number_by_the_model(machine, work, best):
    fastopt.set_num_threads(4)
    machine.seconds = {1: work, 2: work / 2, 4: work / 4}
    machine.waking = 0.0
    medium = Launch(MEDIUM)
    launch._launch_seconds.update({2: 2e-6, 4: 5e-6})
    assert machine.used(medium, SAMPLE + SAMPLE) == [1] * SAMPLE + [best] * SAMPLE


def test_half_the_threads_are_tried_in_turn_for_some_may_be_busy(machine):
    fastopt.set_num_threads(4)
    machine.seconds = {1: 4e-3, 2: 2e-3, 4: 9e-3}
    large = Launch(LARGE)
    machine.used(large, 10 * PHASE)
    assert machine.used(large, 100).count(2) > 60


def test_waking_is_measured_once_for_each_number_of_threads(machine):
    machine.used(Launch(MEDIUM), SAMPLE + 1)
    assert launch._launch_seconds == {2: pytest.approx(2e-6)}
    machine.waking = 1.0
    machine.used(Launch(MEDIUM), SAMPLE + 1)
    assert launch._launch_seconds == {2: pytest.approx(2e-6)}


def test_the_number_of_threads_can_change_at_any_time(machine):
    large = Launch(LARGE)
    assert machine.used(large, 2) == [2, 2]
    fastopt.set_num_threads(1)
    assert machine.used(large, 2) == [1, 1]
    fastopt.set_num_threads(4)
    assert machine.used(large, 1) == [4]


@pytest.mark.parametrize("size", [10, MEDIUM, LARGE])
def test_a_threshold_decides_alone(machine, monkeypatch, size):
    monkeypatch.setattr(runtime, "_parallel_threshold", None)
    traffic = size
    for threshold, threads in ((traffic, 2), (traffic + 1, 1)):
        fastopt.set_parallel_threshold(threshold)
        assert fastopt.get_parallel_threshold() == threshold
        assert machine.used(Launch(size), 100) == [threads] * 100


@pytest.mark.parametrize("size", [MEDIUM, LARGE])
@pytest.mark.parametrize("seconds", [1e-6, 1e-3])
def test_a_threshold_decides_over_what_was_found_out(machine, size, seconds):
    machine.seconds[1] = seconds
    known = Launch(size)
    machine.used(known, 100)
    for threshold, threads in ((0, 2), (2**40, 1)):
        fastopt.set_parallel_threshold(threshold)
        assert machine.used(known, 100) == [threads] * 100


def test_trials_go_on_after_the_machine_was_asleep(machine):
    medium = Launch(MEDIUM)
    machine.seconds = {1: 12e-6, 2: 3e4}
    machine.used(medium, SAMPLE + 1)
    machine.seconds[2] = 7e-6
    machine.used(medium, launch.LONGEST_PAUSE + 100)
    assert machine.used(medium, 10) == [2] * 10


def test_waking_is_not_measured_for_long_nor_kept_while_cores_are_busy(machine):
    machine.waking = 8e-3
    begin = machine.now
    machine.used(Launch(MEDIUM), SAMPLE + 1)
    assert machine.now - begin < 0.05
    assert launch._launch_seconds == {}


def test_a_signal_handler_may_step_while_a_launcher_learns(machine):
    medium = Launch(MEDIUM)
    machine.used(medium, SAMPLE)
    launcher = medium.prepare()
    inner = launcher._parallel

    def interrupted(*arguments):
        inner(*arguments)
        if arguments[1:] != nothing():
            launcher._parallel = inner
            for _ in range(2 * SAMPLE):
                launcher()
            launcher._parallel = interrupted

    launcher._parallel = interrupted
    machine.threads.clear()
    for _ in range(SAMPLE):
        launcher()
    # A trial that was interrupted looks slow; all launches were made, and the next phase begins.
    assert machine.threads.count(2) >= 1
    assert machine.threads.count(1) >= 2 * SAMPLE
    launcher._parallel = inner
    assert machine.used(medium, PHASE) == [1] * PHASE


def test_threads_can_be_set_while_another_thread_makes_optimizers():
    stop = threading.Event()
    failures = []

    def make():
        while not stop.is_set():
            fastopt.SGD(np.ones(3)).step(np.ones(3))

    def guarded():
        try:
            make()
        except Exception as failure:
            failures.append(failure)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        for i in range(2000):
            fastopt.set_num_threads(1 + i % 2)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert failures == []


@pytest.mark.parametrize("wrong", [1.5, "2", True])
def test_a_threshold_must_be_an_integer(wrong):
    with pytest.raises(TypeError, match="n_bytes must be an integer, got"):
        fastopt.set_parallel_threshold(wrong)
    assert fastopt.get_parallel_threshold() is None


def test_a_threshold_must_not_be_negative():
    with pytest.raises(ValueError, match="n_bytes must be at least 0, got -1"):
        fastopt.set_parallel_threshold(-1)
    assert fastopt.get_parallel_threshold() is None


@pytest.mark.parametrize("size", [1_000, 30_000, 300_000])
def test_bits_are_the_same_however_launches_are_tried(size):
    fastopt.set_num_threads(4)
    rng = np.random.default_rng(0)
    theta, g = rng.normal(size=(2, size)).astype(np.float32)
    found, expected = (fastopt.Adam(theta.copy()) for _ in range(2))
    fastopt.set_parallel_threshold(10**12)
    try:
        expected.step(g)
    finally:
        fastopt.set_parallel_threshold(None)
    for _ in range(60):
        found.step(g)
    for _ in range(59):
        expected.step(g)
    assert np.array_equal(found.params, expected.params)
    assert np.array_equal(found.state["v"], expected.state["v"])
