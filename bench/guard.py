"""``python -m bench.guard``: whether fastopt has become slower against the limit and its peers than a baseline says.

The baseline (``bench/baseline.json``) has ratios, not times: of other contenders' times to fastopt's, which depend much less on
the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contenders import OURS
from bench.records import label, ratio

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.8  # a ratio may fall to this share of its baseline; from run to run they differ by some ten per cent


def ratios(measured: Any) -> dict[str, float]:
    """All ratios of what ``python -m bench --json`` or ``python -m bench.shapes --json`` wrote, by their names."""
    if isinstance(measured, list):
        return {name: value for record in measured for name, value in _ratios_of_shape(record)}
    found = {}
    for record in measured["results"]:
        for contender in record["seconds"]:
            if contender != OURS:
                name = f"{_cell(record)}, against {contender}"
                found[name] = round(float(ratio(record, contender) or 0.0), 3)
    return found


def _ratios_of_shape(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    ours = record["seconds"][OURS]
    for contender, seconds in record["seconds"].items():
        if contender != OURS:
            share = statistics.median(other / own for other, own in zip(seconds, ours, strict=True))
            yield f"{record['shape']}, against {contender}", round(share, 3)


def _cell(record: Mapping[str, Any]) -> str:
    what = f"{label(record['optimizer'], record['option'])}, {record['dtype']}, {record['size']:,} elements"
    return f"{what}, {record['threads']} thread{'s' if record['threads'] > 1 else ''}"


def worse(baseline: Mapping[str, float], now: Mapping[str, float]) -> Iterator[str]:
    """What got worse, in words; only what both have is compared."""
    for name, before in baseline.items():
        if name in now and now[name] < TOLERANCE * before:
            yield f"{name}: {now[name]:.2f} instead of {before:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or write the baseline anew."""
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("measured", type=Path, nargs="+", help="what python -m bench --json or bench.shapes --json wrote")
    parser.add_argument("--write", action="store_true", help="make them the baseline instead, and leave other ratios there")
    args = parser.parse_args(argv)
    now = {name: value for path in args.measured for name, value in ratios(json.loads(path.read_text())).items()}
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if args.write:
        BASELINE.write_text(json.dumps(baseline | now, indent=1) + "\n")
        return 0
    found = list(worse(baseline, now))
    print("\n".join(found) if found else f"nothing got worse, of {len(baseline.keys() & now.keys())} ratios that both have")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
