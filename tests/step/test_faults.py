"""An exception at any line, an interrupt or no memory: nothing is torn, and the next step is what it should be."""

import copy
import functools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import fastopt
from tests.refusal import snapshot
from tests.selection import PROFILES

PACKAGE = str(Path(fastopt.__file__).parent)
TRIES = settings.default.max_examples  # of each case, spread over its lines
LR, RATES = 0.125, [np.full(3, 0.25), np.full(2, 0.5)]


class FaultError(MemoryError):
    """What comes up."""


def fail():
    raise FaultError


def lines_before(fault, act, happen=fail):
    """Do something, and let an exception come up, or something else happen, before the line of the package with this number.

    Returns
    -------
    int or None
        How many lines it took; None if it was interrupted.
    """
    seen = 0

    def trace(frame, event, argument):
        nonlocal seen
        # What tidies up after plans that are gone is called from anywhere, and its exceptions are lost.
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_filename.endswith("runtime.py"):
            return None
        if event == "line":
            seen += 1
            if seen == fault:
                happen()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except FaultError:
        return None
    finally:
        sys.settrace(before)
    return seen


def gradients(opt):
    given = [[np.full(p.shape, 0.5 + i) for p in group.parameters] for i, group in enumerate(opt.param_groups)]
    return given if len(given) > 1 else given[0]


def assign(**values):
    def act(opt):
        for name, value in values.items():
            setattr(opt, name, copy.deepcopy(value))

    return act


CASES = {
    "the first step": ({}, lambda opt: opt.step(gradients(opt))),
    "a step that is clipped": ({"clip_norm": 0.1, "ema_decay": 0.5}, lambda opt: opt.step(gradients(opt))),
    "a step on a schedule": ({"lr": lambda step: 0.5 / (1 + step)}, lambda opt: opt.step(gradients(opt))),
    "a step at a rate": ({}, lambda opt: opt.step(gradients(opt), lr=0.5)),
    "a skipped step": ({"nonfinite": "skip"}, lambda opt: opt.step([g + np.inf for g in gradients(opt)])),
    "accumulation": ({}, lambda opt: (opt.accumulate(gradients(opt)), opt.step())),
    "another rate": ({}, assign(lr=0.5)),
    "rates": ({"lr": RATES}, assign(lr=[2.0 * rates for rates in RATES])),
    "rates in the place of a rate": ({}, assign(lr=RATES)),
    "a schedule": ({}, assign(lr=lambda step: 0.5)),
    "decay": ({}, assign(weight_decay=0.5)),
    "another limit": ({"clip_norm": 1.0}, assign(clip_norm=0.25)),
    "bounds": ({}, assign(bounds=(-1.0, 1.0))),
    "several at once": ({}, lambda opt: opt.param_groups[0].update(lr=0.5, weight_decay=0.25, maximize=True)),
    "one more group": ({}, lambda opt: opt.add_param_group({"params": [np.ones(4)], "lr": 0.5})),
    "beginning anew": ({}, lambda opt: opt.reset()),
    "other arrays": ({}, lambda opt: opt.rebind([p.theta.copy() for p in opt.param_groups[0].parameters])),
}


def made(options, steps):
    opt = fastopt.Adam([np.ones(3), np.ones(2)], **{"lr": LR, **options})
    for _ in range(steps):
        opt.step(gradients(opt))
    return opt


def numbers(opt):
    """Parameters, states and counts, but no hyper-parameters."""
    groups, state, count = snapshot(opt)
    return [group["params"] for group in groups], state, count


def same(one, other):
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_torn(case):
    options, act = CASES[case]
    begin = functools.partial(made, options, steps=0 if case == "the first step" else 1)
    act(after := begin())
    lines = lines_before(0, functools.partial(act, begin()))
    ended = 0
    for fault in np.unique(np.linspace(1, lines, TRIES).astype(int)):
        opt = begin()
        before = numbers(opt)
        ended += lines_before(fault, functools.partial(act, opt)) is None
        if case != "beginning anew":  # whose states are set one after the other
            assert same(numbers(opt), before) or same(numbers(opt), numbers(after))
        # What the next step does is what can be read: a copy, which has nothing but that, does the same.
        opt.discard()
        other = copy.deepcopy(opt)
        for each in (opt, other):
            each.step(gradients(each))
        np.testing.assert_equal(numbers(opt), numbers(other))
    assert ended > min(lines, PROFILES["everyday"]) // 2


# Those that neither change how gradients come nor take what was accumulated.
ALONE = [case for case in CASES if case not in ("accumulation", "a skipped step", "one more group")]


@pytest.mark.parametrize("case", ALONE)
def test_a_signal_handler_may_take_a_step(case):
    options, act = CASES[case]
    begin = functools.partial(made, options, steps=1)
    lines = lines_before(0, functools.partial(act, begin()))
    taken = []
    for fault in np.unique(np.linspace(1, lines, TRIES).astype(int)):
        opt = begin()

        def handler(opt=opt):
            opt.step(gradients(opt))
            taken.append(opt)

        lines_before(fault, functools.partial(act, opt), handler)
        other = copy.deepcopy(opt)
        for each in (opt, other):
            each.step(gradients(each))
        np.testing.assert_equal(numbers(opt), numbers(other))
    assert len(taken) > min(lines, PROFILES["everyday"]) // 2
