"""What pictures have in common: where they are drawn, and their labels."""

from __future__ import annotations

from typing import Any


def axes_of(given: Any, rows: int = 1) -> Any:
    """Where to draw: the axes that were given, or those of a new figure, one above the other."""
    if given is not None:
        return given
    from matplotlib import pyplot

    return pyplot.subplots(rows, 1, sharex=True, layout="constrained")[1]


def labelled(ax: Any, x: str, y: str) -> Any:
    """The same axes with labels and a legend."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend()
    return ax
