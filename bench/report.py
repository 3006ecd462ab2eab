"""What measurements say: tables and plots, for the report in one HTML file and for the pages of the documentation.

Both are made of the same sections. A cell that fastopt loses looks like one that it wins.
"""

from __future__ import annotations

import html
import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from bench import plots
from bench.contenders import LIMIT, OURS
from bench.records import Record, label, ratio

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fastopt: measurements</title><style>
body {{ font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: 0.15em 0.7em; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
svg {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>fastopt: measurements</h1>
{sections}
</body></html>
"""


class Section(NamedTuple):
    """A part of the report.

    Attributes
    ----------
    title, text : str
        What it is, and how to read it.
    figures : sequence of callable
        Each draws on a figure.
    header : sequence of str
        Of the table; none if it is empty.
    rows : sequence of sequence of str
        The table.
    """

    title: str
    text: str
    figures: Sequence[Callable[[Figure], None]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def sections(measured: Mapping[str, Any]) -> Iterator[Section]:
    """Everything that was measured.

    Parameters
    ----------
    measured : mapping
        What ``python -m bench --json`` writes.
    """
    records = measured["results"]
    threads = max(record["threads"] for record in records)
    full = [record for record in records if record["threads"] == threads]
    bare = [record for record in full if record["option"] == "none"]
    yield Section("Machine", environment(measured))
    yield from _against_the_limit(bare)
    others = _others(bare)
    yield Section(
        "How many times as long others take",
        "Against the number of elements, in single precision, or in double where the other has no other. Below 1, at the grey "
        "line, the other one is faster.",
        [lambda figure, other=other: plots.speed_up(figure, bare, other) for other in others],
    )
    for size in dict.fromkeys(record["size"] for record in bare):
        own = [record for record in bare if record["size"] == size]
        columns = _others(own)
        yield Section(
            f"{size:,} elements, {threads} threads", "", (), header(columns), [cells(record, columns) for record in own]
        )
    if with_options := [record for record in full if record["option"] != "none"]:
        yield _options(with_options, bare)
    if len({record["threads"] for record in records}) > 1:
        yield Section(
            "Threads", "Bytes a second of fastopt, and of the limit (dashed).", [lambda figure: plots.scaling(figure, records)]
        )
    if found := measured.get("threshold"):
        yield _threshold(found)
    if found := measured.get("in_cache"):
        yield _in_cache(found)
    if found := measured.get("latency"):
        yield _latency(found)
    if found := measured.get("startup"):
        rows = [[what, f"{1e3 * statistics.median(seconds):.2f} ms"] for what, seconds in found.items()]
        figures = [lambda figure: plots.startup(figure, found)]
        yield Section(
            "Cold start", "Medians over fresh processes, with a cache that is filled.", figures, ["what", "time"], rows
        )


def environment(measured: Mapping[str, Any]) -> str:
    """What was measured on, and when."""
    return ", ".join(f"{key} {value}" for key, value in measured["environment"].items())


def page(measured: Mapping[str, Any]) -> str:
    """The report, as HTML without references to anything outside."""
    return PAGE.format(sections="\n".join(_html(section) for section in sections(measured)))


def markdown(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """A table as pages of the documentation have it."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def svg(draw: Callable[[Figure], None]) -> str:
    """A figure as text."""
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def header(others: Sequence[str]) -> list[str]:
    """The head of a table of `cells`."""
    return ["optimizer", "dtype", "elements", OURS, "GB/s", "of limit", *others]


def cells(record: Record, others: Sequence[str]) -> list[str]:
    """A row: time, traffic, share of the limit, and how many times as long others take."""
    seconds = statistics.median(record["seconds"][OURS])
    share = ratio(record, LIMIT)
    found = [label(record["optimizer"], record["option"]), record["dtype"], f"{record['size']:,}", duration(seconds)]
    found += [f"{record['bytes'] / seconds / 1e9:.1f}", "-" if share is None else f"{share:.0%}"]
    return found + [number(ratio(record, other)) for other in others]


def duration(seconds: float) -> str:
    """A time in a fitting unit."""
    return f"{seconds * 1e6:.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def number(x: float | None) -> str:
    """A ratio with three digits."""
    return "-" if x is None else f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def _others(records: Sequence[Record]) -> list[str]:
    """All contenders besides fastopt and the limit."""
    return [name for name in dict.fromkeys(name for r in records for name in r["seconds"]) if name not in (OURS, LIMIT)]


def _against_the_limit(bare: Sequence[Record]) -> Iterator[Section]:
    yield Section(
        "Memory traffic, and its limit",
        "Bytes a second that steps move, in single precision. The limit (dashed) is a loop that moves the same bytes and "
        "computes nothing of use. Where arrays fit into a cache, arithmetic counts, and the way from Python.",
        [lambda figure: plots.roofline(figure, bare), lambda figure: plots.shares(figure, bare)],
    )


def _options(records: Sequence[Record], bare: Sequence[Record]) -> Section:
    plain = {(r["optimizer"], r["dtype"], r["size"]): statistics.median(r["seconds"][OURS]) for r in bare}
    rows = []
    for record in records:
        seconds = statistics.median(record["seconds"][OURS])
        before = plain.get((record["optimizer"], record["dtype"], record["size"]))
        *first, _, share = cells(record, [])
        rows.append([*first, share, number(before and seconds / before)])
    head = ["optimizer", "dtype", "elements", OURS, "of limit", "of the bare step's time"]
    return Section("Options", "What each adds to a step, on arrays of its own.", (), head, rows)


def _threshold(records: Sequence[Mapping[str, Any]]) -> Section:
    names = list(records[0]["seconds"])
    rows = [
        [r["optimizer"], f"{r['size']:,}", *(duration(statistics.median(r["seconds"][n])) for n in names), number(r["excess"])]
        for r in records
    ]
    text = "The same step on the number of threads that fastopt chooses, on one, and on all; and how many times as long the "
    text += "first takes as the better of the others."
    return Section("How many threads", text, (), ["optimizer", "elements", *names, "chosen / best"], rows)


def _in_cache(records: Sequence[Mapping[str, Any]]) -> Section:
    names = [name for name in records[0]["seconds"] if name != OURS]
    rows = [
        [r["optimizer"], r["dtype"], duration(statistics.median(r["seconds"][OURS])), *(number(ratio(r, n)) for n in names)]
        for r in records
    ]
    text = (
        f"{records[0]['size']:,} elements on one thread, where instructions count: how many times as long loops in C take that "
    )
    text += "were written by hand, compiled with -O3 -march=native, and with -fno-math-errno besides."
    return Section("In the cache, against C", text, (), ["optimizer", "dtype", OURS, *names], rows)


def _latency(found: Mapping[str, Mapping[str, float]]) -> Section:
    shown = list(next(iter(found.values())))
    rows = [
        [name, *(duration(quantiles[q]) for q in shown if q in ("50", "90", "99", "99.9"))] for name, quantiles in found.items()
    ]
    text = "Single steps, one by one, each timed by itself, which adds 0.05 µs: the share that took no longer."
    head = ["step", "median", "90 %", "99 %", "99.9 %"]
    return Section("Latency", text, [lambda figure: plots.latency(figure, found)], head, rows)


def _html(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>", f"<p>{html.escape(section.text)}</p>", *map(svg, section.figures)]
    if section.header:
        parts.append("<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in section.header) + "</tr>")
        parts += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows]
        parts.append("</table>")
    return "\n".join(parts)
