"""Parameters and their averages in each other's place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastopt.engine.compile import Variant, part
from fastopt.engine.kernel import Kernel
from fastopt.parameters import AVERAGE, Parameter


@part
def exchanged(theta: Any, g: Any, lr: Any, average: Any) -> Any:
    """The average in the place of theta, and theta in that of the average."""
    return average, theta


def swap(parameters: Iterable[Parameter]) -> None:
    """Let each parameter hold its average, and the other way round."""
    for p in parameters:
        dtype, average = p.theta.dtype, p.states[AVERAGE]
        run = Kernel(Variant(exchanged, dtype, dtype, (dtype,), (), lr_is_array=False), p.theta.size).prepare()
        run((p.theta, average), p.theta, 0.0, ())
