"""Parameters and their averages in each other's place."""

from __future__ import annotations

from typing import Any

from fastopt.arrays.parameters import AVERAGE
from fastopt.engine.compile import part
from fastopt.step.groups import Group
from fastopt.step.passes import Pass


@part
def exchanged(theta: Any, g: Any, lr: Any, average: Any) -> Any:
    """The average in the place of theta, and theta in that of the average."""
    return average, theta


def exchange(group: Group) -> Pass:
    """Let each parameter of a group hold its average, and the other way round."""
    return Pass(exchanged, group.parameters, lambda p: [p.formed(p.theta), p.formed(p.states[AVERAGE])], 0.0, ())
