"""What runs every day covers each grid, and the parts of the rest are all of it."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fresh, selection
from tests.selection import cover


def values(cases):
    return {(k, value) for case in cases for k, value in enumerate(case)}


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from("abc")), min_size=1, unique=True))
def test_a_cover_has_every_value(cases):
    chosen = [cases[index] for index in cover(cases)]
    assert values(chosen) == values(cases)
    assert len(chosen) <= len(values(cases))


def test_a_cover_of_a_full_grid_is_as_long_as_its_longest_side_and_mixes_the_others():
    cases = [(row, one, other) for row in range(12) for one in "ab" for other in "xyz"]
    chosen = [cases[index] for index in cover(cases)]
    assert sorted(row for row, _, _ in chosen) == list(range(12))
    assert len({(one, other) for _, one, other in chosen}) == 6


def test_cases_may_have_values_of_different_kinds():
    cases = [("adam", "betas"), ("sgd", "momentum", "nesterov"), ("sgd", "momentum"), ("sgd", "dampening")]
    assert values(cases[index] for index in cover(cases)) == values(cases)


GRID = """
import pytest

@pytest.mark.wide
@pytest.mark.parametrize("size", range(9))
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_grid(size, threads):
    pass

@pytest.mark.peers
@pytest.mark.wide(by=lambda name, keywords: (name, *keywords.items()))
@pytest.mark.parametrize(("name", "keywords"), [("sgd", {"momentum": m, "lr": lr}) for m in (0.0, 0.9) for lr in (0.1, 0.2)])
def test_keywords(name, keywords):
    pass

@pytest.mark.thorough
def test_long():
    pass

@pytest.mark.huge
def test_huge():
    pass
"""
GRID_SIZE = 9 * 3 + 4 + 1
EVERYDAY = 9 + 2


@pytest.fixture
def collected(tmp_path):
    """A function that collects the tests of a small suite as the arguments say: their names, and all that is printed."""
    names = [name for name in vars(selection) if name.startswith("pytest_")]
    (tmp_path / "conftest.py").write_text(f"from tests.selection import {', '.join(names)}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    huge\n    thorough\n    peers\n    wide(by=None)\n")
    (tmp_path / "test_small.py").write_text(GRID)

    def collect(*arguments):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *arguments]
        env = fresh.environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # all but Hypothesis take longer than what is tested
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return [line for line in done.stdout.splitlines() if "::" in line], done.stdout

    return collect


def test_what_runs_every_day_and_the_parts_of_the_rest_are_all_tests(collected):
    everyday, printed = collected()
    assert len(everyday) == EVERYDAY
    assert "thorough tests" not in printed
    thorough, _ = collected("-m", "thorough")
    both, _ = collected("-m", "thorough or not thorough")
    assert sorted(everyday + thorough) == sorted(both)
    assert len(both) == GRID_SIZE
    shared = []
    for seed in (7, 8, 9):
        tests, printed = collected("-m", "thorough", "--share", "3", "--seed", str(seed))
        assert 0 < len(tests) < len(thorough)
        assert f"- {len(tests)} of {len(thorough)} thorough tests, share 1/3, seed {seed} -" in printed
        shared += tests
    assert sorted(shared) == sorted(thorough)


def test_other_marks_leave_the_thorough_tests_out(collected):
    assert len(collected("-m", "peers")[0]) == 2
    assert len(collected("-m", "not peers")[0]) == EVERYDAY - 2
    assert collected("-m", "not thorough")[0] == collected()[0]
    assert collected("-m", "huge")[0] == ["test_small.py::test_huge"]


def test_a_case_that_is_named_runs(collected):
    for threads in (1, 2, 3):
        name = f"test_small.py::test_grid[{threads}-4]"
        assert collected(name)[0] == [name]


def test_a_part_without_tests_is_no_failure(collected):
    tests, printed = collected("-m", "thorough", "-k", "no_such_test", "--share", "2")
    assert tests == []
    assert "- 0 of 0 thorough tests, share 1/2, seed 0 -" in printed
