"""The plots of the report. Each draws on a figure what records say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contenders import LIMIT, OURS
from bench.latency import SIZES
from bench.records import Record, ratio

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "svg.fonttype": "none"}
STYLE["svg.hashsalt"] = "fastopt"  # the same figure is the same text


def roofline(figure: Figure, records: Sequence[Record]) -> None:
    """Bytes a second by size, of steps and of the limit."""
    axes = figure.subplots()
    for i, (name, own) in enumerate(_by_size(records).items()):
        for contender, style in ((OURS, "-"), (LIMIT, "--")):
            points = [(r["size"], _speed(r, contender)) for r in own if contender in r["seconds"]]
            axes.plot(*zip(*points, strict=True), style, marker=".", color=_colour(i), label=name if style == "-" else None)
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="GB/s")
    _legend(axes)


def shares(figure: Figure, records: Sequence[Record]) -> None:
    """The share of the limit, of every optimizer, at the size that most have."""
    single = [r for r in records if r["dtype"] == "float32" and LIMIT in r["seconds"]]
    sizes = [r["size"] for r in single]
    size = statistics.mode(sizes) if sizes else 0
    own = [r for r in single if r["size"] == size]
    figure.set_size_inches(9, 1.5 + 0.16 * len(own))
    axes = figure.subplots()
    values = [100 * (ratio(r, LIMIT) or 0.0) for r in own]
    axes.barh([r["optimizer"] for r in own], values, color=COLOURS[0], height=0.6)
    axes.axvline(100, color="#888888", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel=f"% of the limit, {size:,} elements")
    axes.tick_params(axis="y", labelsize=7)


def speed_up(figure: Figure, records: Sequence[Record], other: str) -> None:
    """How many times as long another contender takes, by size."""
    figure.set_size_inches(9, 3)
    axes = figure.subplots()
    known = [r for r in records if other in r["seconds"]]
    for i, (name, own) in enumerate(_by_size(known).items()):
        values = [ratio(r, other) for r in own]
        axes.plot([r["size"] for r in own], values, marker=".", color=_colour(i), label=name)
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="times as long", title=other)
    _legend(axes)


def scaling(figure: Figure, records: Sequence[Record]) -> None:
    """Bytes a second by the number of threads, of those that were measured with several."""
    axes = figure.subplots()
    by_cell: dict[tuple[Any, ...], list[Record]] = {}
    for r in sorted(records, key=lambda r: r["threads"]):
        by_cell.setdefault((r["optimizer"], r["option"], r["dtype"], r["size"]), []).append(r)
    for i, (cell, own) in enumerate((cell, own) for cell, own in by_cell.items() if len(own) > 1):
        for contender, style in ((OURS, "-"), (LIMIT, "--")):
            points = [(r["threads"], _speed(r, contender)) for r in own]
            axes.plot(*zip(*points, strict=True), style, marker=".", color=_colour(i), label=cell[0] if style == "-" else None)
    axes.set(xlabel="threads", ylabel="GB/s", ylim=(0, None))
    _legend(axes)


def latency(figure: Figure, found: Mapping[str, Mapping[str, float]]) -> None:
    """The share of single steps that took no longer."""
    axes = figure.subplots()
    for i, (name, quantiles) in enumerate(found.items()):
        shares = [float(share) for share in quantiles]
        style = ("-", "--")[i // len(SIZES)]
        axes.plot([1e6 * t for t in quantiles.values()], shares, style, color=_colour(i % len(SIZES)), label=name)
    axes.set(xscale="log", xlabel="µs", ylabel="% of steps")
    _legend(axes)


def startup(figure: Figure, found: Mapping[str, Sequence[float]]) -> None:
    """What a process pays for before its second step."""
    figure.set_size_inches(9, 2.2)
    axes = figure.subplots()
    axes.barh(list(found), [1e3 * statistics.median(seconds) for seconds in found.values()], color=COLOURS[0], height=0.6)
    axes.invert_yaxis()
    axes.set(xlabel="ms")


def _by_size(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Those in single precision (or double, if there are no others) that have several sizes, by optimizer."""
    single = [r for r in records if r["dtype"] == "float32"] or list(records)
    found = {name: [r for r in single if r["optimizer"] == name] for name in dict.fromkeys(r["optimizer"] for r in single)}
    several = {name: own for name, own in found.items() if len(own) > 1}
    return {name: sorted(own, key=lambda r: r["size"]) for name, own in (several or found).items()}


def _speed(record: Record, contender: str) -> float:
    return record["bytes"] / statistics.median(record["seconds"][contender]) / 1e9


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
