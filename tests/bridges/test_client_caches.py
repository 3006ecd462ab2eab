"""Functions of users', cached by Numba, that call rules: found again as long as the rules are the same, and no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import fresh

# A module of a user's; Numba looks at this file alone.
CLIENT = """
import numba, numpy as np, fastopt

descent = fastopt.embed(fastopt.SGD, lr=0.5, momentum=0.5)
embedded, values, step = descent.rule, descent.values, descent.step
plain = fastopt.rules.momentum

@numba.njit(cache=True)
def by_embedded_rule(theta, p, row):
    numbers = values(row)
    for i in range(theta.size):
        theta[i], p[i] = embedded(theta[i], 1.0, numbers[0], p[i], *numbers[1:])

@numba.njit(cache=True)
def by_kernel(theta, p, row):
    step(theta, np.ones_like(theta), (p,), row, 0, theta.size)

@numba.njit(cache=True)
def by_plain_rule(theta, p, row):
    for i in range(theta.size):
        theta[i], p[i] = plain(theta[i], 1.0, row[0], p[i], row[1], row[2], row[3], row[4])

@numba.njit(cache=True, parallel=True)
def in_parallel(theta, p, row):
    for i in numba.prange(theta.size):
        theta[i], p[i] = plain(theta[i], 1.0, row[0], p[i], row[1], row[2], row[3], row[4])

@numba.njit(cache=True)
def indirectly(theta, p, row):
    by_plain_rule(theta, p, row)
"""

SCRIPT = """
sys.path.insert(0, os.getcwd())
import client

found = {}
for name in ("by_embedded_rule", "by_kernel", "by_plain_rule", "in_parallel", "indirectly"):
    function = getattr(client, name)
    theta, p = np.zeros(3), np.ones(3)
    function(theta, p, client.descent.row(1))
    found[name] = [theta.tolist(), sum(function.stats.cache_hits.values())]
report(**found)
"""


@pytest.fixture
def package(package: Path) -> Path:
    """A copy of the package beside a client, in a folder to run in."""
    (package / "client.py").write_text(CLIENT)
    return package


def run(folder: Path) -> dict[str, Any]:
    return fresh.run(SCRIPT, folder, PYTHONPATH=str(folder), NUMBA_CACHE_DIR=str(folder / "cache"), NUMBA_NUM_THREADS="2")


def edit(source: Path, old: str, new: str) -> None:
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))


def test_cached_functions_have_the_rule_and_the_engine_of_the_present_version(package: Path) -> None:
    before = run(package)
    assert {hits for _, hits in before.values()} == {0}
    again = run(package)
    assert {name: theta for name, (theta, _) in again.items()} == {name: theta for name, (theta, _) in before.items()}
    assert {hits for _, hits in again.values()} == {1}

    source = package / "fastopt" / "optimizers" / "sgd.py"
    text = source.read_text()
    begin = text.index("return theta", text.index("def momentum("))
    source.write_text(text[:begin] + text[begin:].replace("return theta - ", "return theta + ", 1))
    upgraded = run(package)
    for name, (theta, hits) in upgraded.items():
        assert theta == [-x for x in before[name][0]], name
        assert hits == 0, name

    old = "return lambda source, i, dtype: dtype(source)\n"
    edit(package / "fastopt" / "engine" / "storage.py", old, old.replace("dtype(source)", "dtype(source) + dtype(source)"))
    after = run(package)
    assert {hits for _, hits in after.values()} == {0}
    assert after["by_embedded_rule"][0] != upgraded["by_embedded_rule"][0]
    assert after["by_plain_rule"][0] == upgraded["by_plain_rule"][0]
    assert {hits for _, hits in run(package).values()} == {1}
