"""Decisions: numbers that change from step to step, computed inside of a step's one call.

Adam's corrections follow from the number of the step; how far LAMB steps, from two norms. The function that tells them takes
double-precision numbers and may branch, as it runs once a step, or once for each tensor; it is compiled by itself, and called
by its address like a span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import float64

from fastopt.engine.addresses import vector
from fastopt.engine.compile import Rule
from fastopt.engine.digest import digest
from fastopt.engine.interpreted import fixed_tuple
from fastopt.engine.registration import registered


def decision(function: Rule) -> Rule:
    """Mark a function as one that computes the coefficients of a rule.

    Parameters
    ----------
    function : callable
        ``function(t, *scalars, *sums, *numbers)`` returns a tuple: the new running scalars, and then the coefficients. All of
        them are float64, the number of the step ``t``, too.

    Returns
    -------
    callable
        The same function, which runs in compiled code, too.
    """
    return registered(function)


@decision
def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers; NaN if one of them is."""
    return a if a > b or a != a else b


class Decision(NamedTuple):
    """All that tells one compiled decision from another: the function, and how many numbers it takes and gives."""

    rule: Rule
    scalars: int
    sums: int
    numbers: int
    moved: int  # new scalars that it gives: all or none
    results: int  # besides them

    @property
    def name(self) -> str:
        """``<function>_<counts>_<digest>``, as those of spans."""
        counts = "_".join(map(str, self[1:]))
        return f"{self.rule.__name__}_{counts}_{digest(self.rule)}"

    def span(self) -> Callable[..., None]:
        """The function of addresses, not compiled yet: of numbers, sums, scalars, new scalars and results; and the step."""
        function, (scalars, sums, numbers, moved, results) = self.rule, self[1:]

        def decide(numbers_at: Any, sums_at: Any, scalars_at: Any, new_scalars_at: Any, results_at: Any, t: Any) -> None:
            new = function(
                float64(t),
                *fixed_tuple(vector(scalars_at, scalars, float64), scalars),
                *fixed_tuple(vector(sums_at, sums, float64), sums),
                *fixed_tuple(vector(numbers_at, numbers, float64), numbers),
            )
            for i in range(moved):
                vector(new_scalars_at, moved, float64)[i] = new[i]
            for i in range(results):
                vector(results_at, results, float64)[i] = new[moved + i]

        decide.__name__ = decide.__qualname__ = self.name
        return decide
