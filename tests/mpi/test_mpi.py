"""Steps on several processes: the cases of this folder, by ranks on this machine."""

import fcntl
import functools
import json
import os
import subprocess
import sys

import pytest

from tests import fresh
from tests.mpi import plan

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A function that gives what the cases have raised, by name and groups; one worker launches them, and the others wait."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which is that of all workers

    @functools.cache
    def found(when):
        path = folder / f"ranks-{when}.json"
        with open(path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if not (line := file.read()):
                line = launched(when)
                file.write(line)
        return {(name, tuple(groups)): errors for name, groups, errors in json.loads(line)}

    return found


def launched(when):
    """What the ranks print."""
    launch = ["mpiexec", "--allow-run-as-root", "--oversubscribe", "-n", str(plan.RANKS)]
    program = [sys.executable, "-m", "mpi4py", "-m", "tests.mpi", when]
    done = subprocess.run(
        launch + program, cwd=fresh.ROOT, env=fresh.environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("name", "groups"), plan.chosen(True), ids=str)
def test_all_ranks(name, groups, found):
    assert found("everyday")[name, groups] == []


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "groups"), plan.chosen(False), ids=str)
def test_all_ranks_in_other_groups(name, groups, found):
    assert found("thorough")[name, groups] == []
