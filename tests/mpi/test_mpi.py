"""Steps on several processes: the cases of ``tests/mpi/cases.py``, by so many ranks on this machine."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fresh
from tests.test_docs import ROOT, fences

pytestmark = pytest.mark.mpi

PROGRAM = Path(__file__).with_name("cases.py")
CASES = re.findall(r"^@case\ndef (\w+)", PROGRAM.read_text(encoding="utf-8"), re.MULTILINE)


def mpiexec(ranks, *program):
    """Run a program of Python by so many ranks; what it prints."""
    command = ["mpiexec", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), sys.executable, "-m", "mpi4py", *program]
    done = subprocess.run(command, cwd=fresh.ROOT, env=fresh.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def found(ranks):
    return json.loads(mpiexec(ranks, "-m", "tests.mpi.cases").splitlines()[-1])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_all_ranks(name, ranks):
    assert found(ranks).keys() == set(CASES)
    assert found(ranks)[name] == []


def test_what_the_page_shows_runs(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("".join(code for _, code in fences(ROOT / "docs" / "mpi.md", r"\{code-block\} python")))
    mpiexec(2, str(program))


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("digits", ["--epochs", "3"], r"2 ranks: (\d+).\d% of the test images"),
        ("inversion", ["--size", "64", "--steps", "60"], r"2 ranks: mean error 0.0(\d+)"),
    ],
)
def test_examples_draw_what_came_out(name, arguments, told, tmp_path):
    picture = tmp_path / "picture.png"
    out = mpiexec(2, str(fresh.ROOT / "examples" / "mpi" / f"{name}.py"), *arguments, "--out", str(picture))
    assert (found := re.search(told, out)), out
    assert int(found[1]) > 80 if name == "digits" else int(found[1]) < 600, out
    assert picture.stat().st_size > 10_000
