"""The pictures of the demo."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fastopt.commands.demo.inversion import NOISE, Inversion
from fastopt.commands.demo.training import Run

COLORS = {"SGD": "#3b6fb6", "AdaGrad": "#2a9d6f", "RMSProp": "#d9822b", "Adam": "#b5345c"}
LINES = ("-", "--", ":")
FUSED, PLAIN = "#b5345c", "#c3c8d0"


def draw_digits(runs: Sequence[Run], path: Path) -> None:
    """Draw the loss curves, and what a step costs."""
    figure = _figure(12, 5.2)
    curves, bars = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _draw_losses(curves, runs)
    curves.set(xlabel="epoch", ylabel="training loss", title="Handwritten digits: loss")
    _draw_steps(bars, runs)
    figure.savefig(path, dpi=150)


def draw_inversion(inversion: Inversion, runs: Sequence[Run], path: Path) -> None:
    """Draw the true field, the data, the field recovered with the lowest loss; the loss curves, and what a step costs."""
    best = min(runs, key=lambda run: run.losses[-1])
    figure = _figure(12, 7.8)
    panels = figure.subplot_mosaic([["true", "data", "recovered"], ["losses", "losses", "steps"]], height_ratios=(1.25, 1))
    for name, field, title in (
        ("true", inversion.true, "The true field"),
        ("data", inversion.data, "The data: stirred, diffused, noisy"),
        ("recovered", inversion.field(best.params), f"Recovered by {best.system.title} in {best.steps} steps"),
    ):
        image = panels[name].imshow(field, cmap="magma", vmin=0, vmax=1)
        panels[name].set(xticks=[], yticks=[], title=title)
    figure.colorbar(image, ax=panels["recovered"], shrink=0.8, label="concentration")
    curves = panels["losses"]
    _draw_losses(curves, runs)
    floor = 0.5 * NOISE**2 * inversion.data.size
    curves.axhline(floor, color="0.6", linewidth=1)
    curves.annotate("what the noise alone costs", (0.98, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    curves.set(xlabel="step", ylabel="half the sum of squared misfits", title="Loss")
    _draw_steps(panels["steps"], runs)
    figure.savefig(path, dpi=150)


def _figure(width: float, height: float) -> Any:
    """A figure of its own, without pyplot: the caller's backend and settings stay as they are."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_losses(axes: Any, runs: Sequence[Run]) -> None:
    for run, style in zip(runs, _styles(runs), strict=True):
        axes.plot(range(1, len(run.losses) + 1), run.losses, label=run.system.title, linewidth=1.8, **style)
    axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _styles(runs: Sequence[Run]) -> Iterator[dict[str, str]]:
    """A colour for each family, a line for each of its members."""
    lines = {family: itertools.cycle(LINES) for family in COLORS}
    for run in runs:
        yield {"color": COLORS[run.system.family], "linestyle": next(lines[run.system.family])}


def _draw_steps(axes: Any, runs: Sequence[Run]) -> None:
    rows = range(len(runs))
    height = 0.38
    axes.barh([row - height / 2 for row in rows], [run.fused * 1e6 for run in runs], height, color=FUSED, label="fastopt")
    axes.barh(
        [row + height / 2 for row in rows], [run.plain * 1e6 for run in runs], height, color=PLAIN, label="in-place NumPy"
    )
    for row, run in enumerate(runs):
        longest = max(run.fused, run.plain) * 1e6
        axes.annotate(f"{run.speedup:.1f}x", (longest, row), (5, 0), textcoords="offset points", va="center", weight="bold")
    axes.set_yticks(rows, [run.system.title for run in runs])
    axes.tick_params(axis="y", length=0)
    margin = max(0.6, 1.6 - len(runs) / 2)  # bars of one or two optimizers would be walls
    axes.set_ylim(len(runs) - 1 + margin, -margin)
    axes.margins(x=0.1)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    size = runs[0].params.buffer.size
    axes.set(xlabel="microseconds (median)", title=f"One step over {size:,} parameters")
