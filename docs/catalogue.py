"""The lists of optimizers in these pages, written from `fastopt.optimizers.__all__` while the pages are built."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

import fastopt
from bench.traffic import passes

BYTES = 4  # of a float32 element


def names() -> list[str]:
    """All optimizers, in the order of the alphabet."""
    return sorted(fastopt.optimizers.__all__, key=str.lower)


def reference() -> str:
    """What ``api.md`` includes."""
    listed = "\n".join(f"   {name}" for name in names())
    return f"```{{eval-rst}}\n.. currentmodule:: fastopt\n\n.. autosummary::\n   :toctree: generated/api\n\n{listed}\n```\n"


def table() -> str:
    """What ``optimizers/index.md`` includes: what each one is, and the bytes that a step with the defaults moves."""
    rows = [("optimizer", "what it is", "bytes"), *map(_row, names())]
    cells = "\n".join(f"   * - {link}\n     - {text}\n     - {count}" for link, text, count in rows)
    return f"```{{eval-rst}}\n.. list-table::\n   :header-rows: 1\n\n{cells}\n```\n"


def _row(name: str) -> tuple[str, str, str]:
    cls = getattr(fastopt, name)
    summary = (inspect.getdoc(cls) or "").partition("\n")[0]
    moved = sum(each.moved for each in passes(cls(np.zeros(1, np.float32))))
    return f":doc:`{name} </optimizers/{name.lower()}>`", summary, str(BYTES * moved)


def write(folder: Path) -> None:
    """Write the files that the pages include."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.md").write_text(reference(), encoding="utf-8")
    (folder / "optimizers.md").write_text(table(), encoding="utf-8")
