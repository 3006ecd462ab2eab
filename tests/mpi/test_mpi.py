"""Steps on several processes: the cases of ``tests/mpi/cases.py``, by so many ranks on this machine."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fresh

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
