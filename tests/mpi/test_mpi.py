"""Steps on several processes: the cases of this folder, by ranks on this machine."""

import functools
import json
import subprocess
import sys

import pytest

from tests import fresh
from tests.mpi import plan

pytestmark = pytest.mark.mpi


@functools.cache
def found(when):
    """What the cases have raised, by name and groups."""
    launch = ["mpiexec", "--allow-run-as-root", "--oversubscribe", "-n", str(plan.RANKS)]
    program = [sys.executable, "-m", "mpi4py", "-m", "tests.mpi", when]
    done = subprocess.run(
        launch + program, cwd=fresh.ROOT, env=fresh.environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return {(name, tuple(groups)): errors for name, groups, errors in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(("name", "groups"), plan.chosen(True), ids=str)
def test_all_ranks(name, groups):
    assert found("everyday")[name, groups] == []


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "groups"), plan.chosen(False), ids=str)
def test_all_ranks_in_other_groups(name, groups):
    assert found("thorough")[name, groups] == []
