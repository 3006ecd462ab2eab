"""The picture of the landing page and the README, drawn from ``measured.json``: ``python docs/landing.py`` writes it anew."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import measurements  # noqa: E402  found through the line above

from bench import report  # noqa: E402
from bench.records import ratio  # noqa: E402

PICTURE = DOCS / "_static" / "speed.svg"
SIZES = (100_000, 1_000_000, 10_000_000)
OTHERS = ("in-place NumPy", "PyTorch foreach", "PyTorch fused", "optax under jit")
OURS, THEIRS, INK = "#0072B2", "#A0A0A0", "#808080"  # legible on white and on black


def ratios(measured: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """How many times as long as fastopt's a step of Adam in float32 takes, by size and contender."""
    wanted = ("Adam", "float32", "none")
    adam = [each for each in measured["results"] if (each["optimizer"], each["dtype"], each["option"]) == wanted]
    found = {each["size"]: {name: ratio(each, name) for name in ("fastopt", *OTHERS)} for each in adam if has_all(each)}
    return {size: found[size] for size in SIZES}


def has_all(record: Mapping[str, Any]) -> bool:
    """Whether all contenders were measured."""
    return set(OTHERS) <= set(record["seconds"])


def draw(figure: Figure) -> None:
    """A panel for each size, a bar for each contender."""
    figure.set_size_inches(8, 2.2)
    for axes, (size, times) in zip(
        figure.subplots(1, len(SIZES), sharey=True), ratios(measurements.load()).items(), strict=True
    ):
        bars = axes.barh(list(times), list(times.values()), color=[OURS, *[THEIRS] * len(OTHERS)])
        axes.bar_label(bars, [f"{time:.{2 if time < 10 else 0}f}" for time in times.values()], padding=3)
        axes.set(title=f"{size:,} elements", xscale="log", xlim=(0.5, 900), xticks=[])
        axes.minorticks_off()
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)


def text() -> str:
    """The picture as SVG, without a background."""
    ink = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context({"savefig.transparent": True, **ink}):
        return report.svg(draw)


if __name__ == "__main__":
    PICTURE.write_text(text(), encoding="utf-8")
