"""A report of measurements as one HTML file: what was measured, on what, with plots that need no network."""

from __future__ import annotations

import html
import io
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, LIMIT = "fastopt", "streaming limit"

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "svg.fonttype": "none"}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fastopt: measurements</title><style>
body {{ font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.15em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
svg {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>fastopt: measurements</h1>
<p>{environment}</p>
{sections}
</body></html>
"""

Record = Mapping[str, Any]


def page(measured: Mapping[str, Any]) -> str:
    """The report.

    Parameters
    ----------
    measured : mapping
        What ``python -m bench --json`` writes.

    Returns
    -------
    str
        HTML without references to anything outside.
    """
    environment = ", ".join(f"{key} {value}" for key, value in measured["environment"].items())
    with mpl.rc_context(STYLE):
        sections = "\n".join(_sections(measured))
    return PAGE.format(environment=html.escape(environment), sections=sections)


def ratio(record: Record, contender: str, reference: str = OURS) -> float | None:
    """The median of the rounds' ratios of two contenders' times, if both were measured."""
    seconds = record["seconds"]
    if contender not in seconds or reference not in seconds:
        return None
    return float(np.median(np.divide(seconds[contender], seconds[reference])))


def markdown(records: Sequence[Record]) -> str:
    """A table of all records, as pages of the documentation have it."""
    lines = ["| " + " | ".join(_header(records)) + " |", "|" + "---|" * len(_header(records))]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(records)]
    return "\n".join(lines) + "\n"


def _sections(measured: Mapping[str, Any]) -> Iterator[str]:
    records = measured["results"]
    others = _others(records)
    yield "<h2>Share of the streaming limit</h2><p>A loop that only moves the same bytes is 100 %.</p>"
    yield _figure(lambda axes: _by_size(axes, records, LIMIT, 100.0, "% of the limit"))
    for other in others:
        yield f"<h2>{html.escape(other)}: how many times as long it takes</h2><p>Below 1 it is faster than fastopt.</p>"
        yield _figure(lambda axes, other=other: _by_size(axes, records, other, 1.0, "times as long"))
    if scaling := measured.get("scaling"):
        yield "<h2>Threads</h2><p>Bytes a second of fastopt, and of the limit (dashed).</p>"
        yield _figure(lambda axes: _scaling(axes, scaling))
    if latency := measured.get("latency"):
        yield "<h2>Latency</h2><p>Single steps, one by one: the share that took no longer.</p>"
        yield _figure(lambda axes: _latency(axes, latency))
    if startup := measured.get("startup"):
        yield "<h2>Cold start</h2><table><tr><th>what</th><th>median, ms</th></tr>"
        yield from (f"<tr><td>{html.escape(k)}</td><td>{1e3 * statistics.median(v):.2f}</td></tr>" for k, v in startup.items())
        yield "</table>"
    yield "<h2>All cells</h2><p>The columns after 'of limit' show how many times as long the others take.</p><table>"
    yield "<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in _header(records)) + "</tr>"
    yield from ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in _rows(records))
    yield "</table>"


def _others(records: Sequence[Record]) -> list[str]:
    """All contenders besides fastopt and the limit."""
    return [name for name in dict.fromkeys(name for r in records for name in r["seconds"]) if name not in (OURS, LIMIT)]


def _header(records: Sequence[Record]) -> list[str]:
    return ["optimizer", "dtype", "elements", "fastopt", "GB/s", "of limit", *_others(records)]


def _rows(records: Sequence[Record]) -> Iterator[list[str]]:
    for record in records:
        seconds = statistics.median(record["seconds"][OURS])
        share = ratio(record, LIMIT)
        cells = [record["optimizer"], record["dtype"], f"{record['size']:,}", _duration(seconds)]
        cells += [f"{record['bytes'] / seconds / 1e9:.1f}", "-" if share is None else f"{share:.0%}"]
        yield cells + [_number(ratio(record, other)) for other in _others(records)]


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def _figure(draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=(9, 4), layout="constrained")
    draw(figure.subplots())
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _by_size(axes: Axes, records: Sequence[Record], contender: str, factor: float, label: str) -> None:
    """A line for each optimizer in single precision: a ratio by the number of elements."""
    names = dict.fromkeys(r["optimizer"] for r in records)
    for i, name in enumerate(names):
        points = [(r["size"], ratio(r, contender)) for r in records if r["optimizer"] == name and r["dtype"] == "float32"]
        points = sorted((size, factor * value) for size, value in points if value is not None)
        if points:
            style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            axes.plot(*zip(*points, strict=True), style, marker=".", color=COLOURS[i % len(COLOURS)], label=name)
    axes.axhline(factor, color="#888888", linewidth=0.8)
    axes.set(xscale="log", xlabel="elements", ylabel=label)
    if factor == 1.0:
        axes.set_yscale("log")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + len(names) // 16, fontsize=7)


def _scaling(axes: Axes, scaling: Sequence[Mapping[str, Any]]) -> None:
    for i, name in enumerate(dict.fromkeys(each["optimizer"] for each in scaling)):
        own = [each for each in scaling if each["optimizer"] == name]
        for contender, style in ((OURS, "-"), (LIMIT, "--")):
            speeds = [each["bytes"] / statistics.median(each["seconds"][contender]) / 1e9 for each in own]
            axes.plot(
                [each["threads"] for each in own], speeds, style, marker=".", color=COLOURS[i], label=f"{name}, {contender}"
            )
    axes.set(xlabel="threads", ylabel="GB/s", ylim=(0, None))
    axes.legend(fontsize=7)


def _latency(axes: Axes, latency: Mapping[str, Sequence[float]]) -> None:
    for i, (name, seconds) in enumerate(latency.items()):
        times = 1e6 * np.sort(seconds)
        axes.plot(times, np.linspace(0, 100, times.size), color=COLOURS[i % len(COLOURS)], label=name)
    axes.set(xscale="log", xlabel="µs", ylabel="% of steps")
    axes.legend(fontsize=7)
