"""Parameters and their averages in each other's place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.engine import steps
from fastopt.engine.compile import part
from fastopt.engine.formats import decoded, encoded
from fastopt.step.groups import Group
from fastopt.step.passes import Pass
from fastopt.step.stepping import Stepping

SWAPPED = "the parameters are swapped with their averages; leave the block of swap_ema() first"


@part
def exchanged(theta: Any, g: Any, lr: Any, average: Any) -> Any:
    """The average in the place of theta, and theta in that of the average."""
    return average, theta


@contextlib.contextmanager
def swapped(stepping: Stepping, groups: Sequence[Group]) -> Iterator[None]:
    """Let each parameter of these groups hold its average within a ``with`` block, and the other way round.

    An average of another dtype would lose what the parameter has: it stays as it is, and the parameter is kept in a copy.
    """
    alike = [group for group in groups if any(map(_is_alike, group.parameters))]
    others = [p for group in groups for p in group.parameters if not _is_alike(p)]
    with _changing_places(stepping, alike) if alike else contextlib.nullcontext(), _overwritten(others):
        yield


@contextlib.contextmanager
def _changing_places(stepping: Stepping, groups: Sequence[Group]) -> Iterator[None]:
    """Let parameters and averages of one dtype change places within a ``with`` block."""
    vectors = {p: p.formed(p.theta) for group in groups for p in group.parameters}
    plans = stepping.plans_of(_exchange_pass, groups)

    def exchange() -> None:
        plans.run_vectors(vectors, lambda plan, found, token: plan.call(steps.UPDATE, token))

    try:
        exchange()
        yield
    finally:
        # An exchange may have been interrupted before or after it took place, which its plan has counted.
        if plans.current is not None and plans.current.count % 2:
            exchange()


@contextlib.contextmanager
def _overwritten(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Let parameters hold averages of another dtype within a ``with`` block."""
    kept = [p.theta.copy() for p in parameters]
    try:
        for p in parameters:
            p.theta[...] = encoded(decoded(p.states[AVERAGE]), p.theta.dtype)
        yield
    finally:
        for p, theta in zip(parameters, kept, strict=True):
            p.theta[...] = theta


@property  # type: ignore[misc]
def ema(self: Any) -> Any:
    """The averages of the parameters, nested as these are: views of what the kernels update (None in a group without).

    Raises
    ------
    AttributeError
        If no group was constructed with `ema_decay`.
    """
    if AVERAGE not in self._model.state_names:
        raise AttributeError(f"this {type(self).__name__} has no averages; construct it with ema_decay=")
    return self._model.state(AVERAGE)


@contextlib.contextmanager
def swap_ema(self: Any) -> Iterator[None]:
    """Let the parameters hold their averages within a ``with`` block, to evaluate them.

    Meanwhile `ema` has the parameters, if it is of their dtype, and the optimizer takes no step and gives no state dict.

    Raises
    ------
    AttributeError, RuntimeError
        If no group was constructed with `ema_decay`; if they are swapped already.
    """
    _ = self.ema
    self._require_ready()
    averaged = [group for group in self._model.groups if AVERAGE in group.state_names]
    with swapped(self._stepping, averaged):
        self._barred = SWAPPED
        try:
            yield
        finally:
            self._barred = None


def _is_alike(p: Parameter) -> bool:
    return p.states[AVERAGE].dtype == p.theta.dtype


def _exchange_pass(group: Group) -> Pass:
    parameters = [p for p in group.parameters if _is_alike(p)]
    return Pass(exchanged, parameters, lambda p: [p.formed(p.theta), p.formed(p.states[AVERAGE])], 0.0, ())
