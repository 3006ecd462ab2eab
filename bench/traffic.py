"""What a step has to move: the arrays that each of its passes over memory reads, and those that it writes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastopt


class Pass(NamedTuple):
    """One loop over the elements.

    Attributes
    ----------
    updated : int
        Arrays that it loads and stores.
    read : int
        Arrays that it only loads.
    """

    updated: int
    read: int

    @property
    def moved(self) -> int:
        """Numbers that it moves for each element."""
        return 2 * self.updated + self.read


def passes(optimizer: fastopt.Optimizer) -> tuple[Pass, ...]:
    """The passes of a step: one, or two if something has to be measured or looked at first.

    Parameters
    ----------
    optimizer : Optimizer
        Of one array, that has taken no step.
    """
    (group,) = optimizer.param_groups
    (p,) = group.parameters
    has_rates = "lr" in p.elements
    step = Pass(len(group.arrays(p)), 1 + has_rates + len(optimizer.elements))
    if group["clip_norm"] is not None or optimizer.clip_norm is not None:
        return Pass(0, 1), step
    if group["cautious"]:  # the measure is the rule itself
        return Pass(0, sum(step)), step
    if (measure := optimizer.measure(group)) is None:
        return (step,)
    coefficients = optimizer.measure_coefficients({**group, **group.scalars, **p.scalars}, 1)
    # Theta, the gradient, the rates, the states; among the coefficients, names stand for arrays.
    is_array = [True, True, has_rates, *[True] * len(group.measured(p)[1:]), *[isinstance(c, str) for c in coefficients]]
    return Pass(0, sum(is_array[i] for i in _used(measure))), step


def _used(function: Callable[..., Any]) -> list[int]:
    """The positions of the arguments that make a difference: the compiler loads no others."""
    count = len(inspect.signature(function).parameters)
    arguments = np.where(np.eye(count, dtype=bool), np.nan, 1.0)
    with np.errstate(all="ignore"):
        return [i for i in range(count) if np.isnan(function(*arguments[i])).any()]
