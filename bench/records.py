"""What measurements are kept as: one record for each cell, with the seconds of every round by contender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.contenders import OURS
from bench.measure import Result

Record = Mapping[str, Any]


def record(result: Result) -> dict[str, Any]:
    """What is kept of a result."""
    return {
        "optimizer": result.case.name,
        "option": result.case.option,
        "dtype": result.dtype,
        "size": result.size,
        "bytes": result.case.traffic(result.size, result.dtype),
        "seconds": {name: [float(f"{each:.4g}") for each in times] for name, times in result.seconds.items()},
    }


def ratio(record: Record, contender: str, reference: str = OURS) -> float | None:
    """The median of the rounds' ratios of two contenders' times, if both were measured."""
    seconds = record["seconds"]
    if contender not in seconds or reference not in seconds:
        return None
    return float(np.median(np.divide(seconds[contender], seconds[reference])))


def label(name: str, option: str) -> str:
    """What an optimizer with an option is called."""
    return name if option == "none" else f"{name}, {option}"
