"""Parameters and their averages in each other's place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.engine.compile import part
from fastopt.engine.formats import decoded, encoded
from fastopt.step.groups import Group
from fastopt.step.passes import Pass
from fastopt.step.plan import BusyError

PAUSE = 1e-3  # seconds

SWAPPED = "the parameters are swapped with their averages; leave the block of swap_ema() first"


@part
def exchanged(theta: Any, g: Any, lr: Any, average: Any) -> Any:
    """The average in the place of theta, and theta in that of the average."""
    return average, theta


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
    The end of the block waits while another thread computes a norm, or accumulates.

    Raises
    ------
    AttributeError, RuntimeError
        If no group was constructed with `ema_decay`; if they are swapped already.
    """
    _ = self.ema
    self._require_ready()
    averaged = [group for group in self._model.groups if AVERAGE in group.state_names]
    alike = [group for group in averaged if any(map(_is_alike, group.parameters))]
    # An average of another dtype would lose what the parameter has: it stays as it is, and the parameter is kept in a copy.
    others = [p for group in averaged for p in group.parameters if not _is_alike(p)]
    kept: dict[Parameter, NDArray[Any]] = {}
    exchanges = np.zeros(1, np.int64)  # counted in the call that does one, so that it is known whatever interrupts
    exchange = self._stepping.exchange(_exchange, alike, exchanges)  # one, so that the way back needs nothing new

    def go_back() -> None:
        if self._barred not in (None, SWAPPED):  # a child that was forked meanwhile, whose states are the parent's
            return
        for p in list(kept):
            p.theta[...] = kept[p]
            del kept[p]
        while exchanges[0] % 2:
            try:
                exchange()
            except BusyError:  # another thread computes a norm, say, which ends, while the block can't be left again
                time.sleep(PAUSE)
        self._barred = None

    try:
        try:
            self._barred = SWAPPED  # first, so that nobody steps what is half way
            if alike:
                exchange()
            for p in others:
                kept[p] = p.theta.copy()
                p.theta[...] = encoded(decoded(p.states[AVERAGE]), p.theta.dtype)
            yield
        finally:
            go_back()
    finally:
        go_back()  # what was interrupted; else there is nothing left to do


def _is_alike(p: Parameter) -> bool:
    return p.states[AVERAGE].dtype == p.theta.dtype


def _exchange(group: Group) -> Pass:
    parameters = [p for p in group.parameters if _is_alike(p)]
    return Pass(exchanged, parameters, lambda p: [p.formed(p.theta), p.formed(p.states[AVERAGE])], 0.0, ())
