"""Which tests run: every day a cover of the wide grids, and all of them where ``thorough`` is asked for.

A test over a wide grid has the mark ``wide``. All its cases are collected, but every day only some of them run, such that each
value of each parameter is in one of them: every row of the table, say, with the two dtypes taking turns. The other cases, and
what has the mark ``thorough`` itself, run with ``-m thorough``, or with any other ``-m`` that asks for it.

Where a value costs what it need not, ``wide(by=...)`` says what must be there instead: a function that takes the parameters
and gives a tuple, each of whose values is in one case at least. ``by=lambda row, dtype: (row.optimizer, dtype)`` is one case of
each optimizer, whatever its number of rows.

What takes more memory than machines are sure to have has the mark ``huge``, and runs with ``-m huge`` only.

Tests of Hypothesis run every day with few examples, and with many among the thorough tests.

``--share N --seed S`` takes one of the N parts that the thorough tests fall into, and the next part for the next seed.
"""

import os
import zlib
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, settings

PROFILES = {"everyday": 25, "thorough": 100}  # how many examples Hypothesis tries

CHOSEN = pytest.StashKey[str]()


def pytest_addoption(parser):
    group = parser.getgroup("thorough")
    group.addoption("--share", type=int, default=1, metavar="N", help="run one of N parts of the thorough tests")
    group.addoption("--seed", type=int, default=0, metavar="S", help="which part: the next one for the next seed")


def asks_for_thorough(config):
    return "thorough" in config.option.markexpr.replace("not thorough", "")


def pytest_configure(config):
    """Choose the profile of Hypothesis, before the tests are imported."""
    reproducible = {"derandomize": True, "database": None} if os.environ.get("CI") else {}
    # An example may compile, and to draw one may take long where others are at work.
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    for profile, examples in PROFILES.items():
        settings.register_profile(profile, max_examples=examples, **patient, **reproducible)
    settings.load_profile("thorough" if asks_for_thorough(config) else "everyday")


def drawn(cases, kind):
    """What Hypothesis draws from: all cases among the thorough tests, and every day the first of each kind.

    Each case that is drawn may have kernels of its own, so that a few examples of many cases would compile nearly as many.
    """
    if settings.default.max_examples > PROFILES["everyday"]:
        return cases
    return list({kind(case): case for case in reversed(cases)}.values())


def cover(cases):
    """Some of the cases, as indices, such that each value of each coordinate is in one of them.

    Parameters
    ----------
    cases : list of tuples
        Of values that can be hashed, at least one each.

    Notes
    -----
    The coordinate with the most values leads: its i-th value takes the i-th of the cases that it has, so that combinations of
    the others take turns. What is still missing comes from the cases whose turn is next.
    """
    missing = {(k, value) for case in cases for k, value in enumerate(case)}
    numbers = Counter(k for k, _ in missing)
    lead = max(range(min(map(len, cases))), key=lambda k: numbers[k])
    cases_of = defaultdict(list)
    for index, case in enumerate(cases):
        cases_of[case[lead]].append(index)
    turns = []
    for i, having in enumerate(cases_of.values()):
        turns += [((place - i) % len(having), index) for place, index in enumerate(having)]
    chosen = set()
    for _, index in sorted(turns):
        covered = missing.intersection(enumerate(cases[index]))
        if covered:
            chosen.add(index)
            missing -= covered
    return chosen


def coordinates(item, mark):
    """What must be in one case at least: each parameter's value, the same object in all cases, or what the mark says."""
    by = mark.kwargs.get("by")
    return by(**item.callspec.params) if by else tuple(map(id, item.callspec.params.values()))


def mark_thorough(items):
    """Mark what doesn't run every day: the cases of wide grids that aren't in their cover."""
    grids = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("wide")
        if mark and not item.get_closest_marker("thorough"):
            grids[item.nodeid.partition("[")[0]].append((item, coordinates(item, mark)))
    for grid in grids.values():
        everyday = cover([case for _, case in grid])
        for index, (item, _) in enumerate(grid):
            if index not in everyday:
                item.add_marker("thorough")


def part(item, parts):
    """Which of the parts a thorough test is in. Those of one rule stay together, as they share kernels."""
    row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
    name = row.rule.__name__ if hasattr(row, "rule") else item.nodeid
    return zlib.crc32(name.encode()) % parts


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    asked = asks_for_thorough(config)
    mark_thorough(items)
    for item in items:
        if asked and getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("thorough")
    yield  # pytest takes out what -k and -m don't select
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    parts, seed = config.option.share, config.option.seed
    left_out = {item for item in thorough if not asked or part(item, parts) != seed % parts}
    if asked:
        config.stash[CHOSEN] = (
            f"{len(thorough) - len(left_out)} of {len(thorough)} thorough tests, share 1/{parts}, seed {seed}"
        )
    if "huge" not in config.option.markexpr:
        left_out |= {item for item in items if item.get_closest_marker("huge")}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    """Hand what was chosen from a worker to the process that prints it; a part without tests is no failure."""
    config = session.config
    if CHOSEN in config.stash and hasattr(config, "workeroutput"):
        config.workeroutput["chosen"] = config.stash[CHOSEN]
    if config.option.share > 1 and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    if "chosen" in getattr(node, "workeroutput", {}):
        node.config.stash[CHOSEN] = node.workeroutput["chosen"]


def pytest_terminal_summary(terminalreporter, config):
    if CHOSEN in config.stash:
        terminalreporter.write_sep("-", config.stash[CHOSEN])
