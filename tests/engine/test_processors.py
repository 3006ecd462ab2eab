"""A processor without vectors of its own takes the same steps, bit for bit: what is compiled rounds after each operation."""

from pathlib import Path

import pytest

from tests import fresh
from tests.table import TABLE

STEPPED = """
found = {}
for name in os.environ["OPTIMIZERS"].split():
    for dtype in ("float32", "float64"):
        found[name + dtype] = bits(run(dtype, size=1003, cls=getattr(fastopt, name))[1])
report(**found)
"""

NAMES = sorted({row.optimizer.__name__ for row in TABLE})


PARTS = [pytest.param(NAMES[i::6], marks=pytest.mark.thorough, id=f"part {i + 1}") for i in range(6)]


@pytest.mark.parametrize("names", [pytest.param(["Adam"], id="Adam"), *PARTS])
def test_the_bits_are_those_of_any_other_processor(names: list[str], tmp_path: Path) -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    own, generic = (fresh.run(STEPPED, tmp_path, OPTIMIZERS=" ".join(names), **env) for env in ({}, plain))
    assert len(own) == 2 * len(names)
    assert generic == own
