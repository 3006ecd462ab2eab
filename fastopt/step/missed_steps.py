"""Steps that rows of a table have missed, which they take when they are next needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.arrays.parameters import Parameter
from fastopt.engine.tables import address
from fastopt.step.passes import Pass

# Of so many steps the numbers are kept; then all rows catch up.
MOST = 1024


class Missed:
    """What a table has taken of the steps since all of its rows were up to date, and what these steps were.

    Parameters
    ----------
    p : Parameter
        The table.
    of_pass : Pass
        What steps it.

    Attributes
    ----------
    taken : ndarray of int64, shape (1,)
        How many steps there were since then.
    fields : tuple of int
        Where these, and the numbers of the steps, lie, as compiled code takes them.
    """

    def __init__(self, p: Parameter, of_pass: Pass) -> None:
        self._last = np.zeros(p.shape[0], np.int32)  # how many of them each row has taken
        self.taken: NDArray[Any] = np.zeros(1, np.int64)
        self._history = np.zeros((MOST, of_pass.rows.shape[1]))
        self._counts = np.zeros(MOST, np.int64)
        places = tuple(map(address, (self._last, self.taken, self._history, self._counts)))
        self.fields = *places, self._history.strides[0]

    @property
    def is_full(self) -> bool:
        """Whether there is no place for one more."""
        return bool(self.taken[0] == MOST)


class MissedSteps(dict[Parameter, Missed]):
    """What each table has missed, of those with rows that may have missed some steps."""

    def require_none(self) -> None:
        """Raise RuntimeError if there are rows that have to catch up."""
        # In a list, for a signal handler that takes a step may change which tables there are.
        if names := [p.name for p, missed in list(self.items()) if missed.taken[0]]:
            raise RuntimeError(f"rows of {', '.join(names)} have steps to catch up with; call catch_up() first")


def stands_still(of_pass: Pass, p: Parameter) -> bool:
    """Whether a row stays as it is in a step whose gradient is zero there, whatever the numbers are."""
    if masters.kept_by(p) is not None:
        return False
    states = len(of_pass.operands(p)) - sum(name is not None for name in of_pass.names)
    numbers = np.random.default_rng(0).uniform(0.5, 1.5, (states + len(of_pass.names), 64))
    before, (lr, *coefficients) = numbers[:states], numbers[states:]
    means = [np.zeros(64)] if of_pass.of_rows else []
    with np.errstate(all="ignore"):
        new = of_pass.rule(before[0], np.zeros(64), lr, *before[1:], *means, *coefficients)
    return np.array_equal(new[:states] if isinstance(new, tuple) else [new], before)
