"""The measured part of ``measured.md``, written from ``measured.json`` while the pages are built."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench import report

MEASURED = Path(__file__).with_name("measured.json")


def load() -> dict[str, Any]:
    """What ``python -m bench --json docs/measured.json`` wrote."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def page(folder: Path) -> str:
    """All sections of the report as text for MyST; their figures are written to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for section in report.sections(load()):
        parts.append(f"## {section.title}\n\n{section.text}\n")
        for i, draw in enumerate(section.figures):
            name = f"measured-{re.sub(r'[^a-z0-9]+', '-', section.title.lower())}-{i}.svg"
            (folder / name).write_text(report.svg(draw), encoding="utf-8")
            parts.append(f"![{section.title}](generated/{folder.name}/{name})\n")
        if section.header:
            parts.append(report.markdown(section.rows, section.header))
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Write the file that the page includes, and its figures."""
    (folder / "measured.md").write_text(page(folder / "figures"), encoding="utf-8")
