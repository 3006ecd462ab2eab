"""Callbacks in both of SciPy's forms, asked whether to go on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

KEYWORD = "intermediate_result"


def callback_of(callback: Callable[..., Any] | None) -> Callable[[Callable[[], Any]], bool] | None:
    """A function that calls a callback with what is known so far, and tells whether it asks to stop.

    Parameters
    ----------
    callback : callable or None
        Takes the keyword ``intermediate_result``, or else the point. To stop it raises StopIteration or returns True.

    Returns
    -------
    callable or None
        Called with a function that gives the result so far.
    """
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback must be callable or None, got {callback!r}")
    takes_result = _takes_result(callback)

    def asks_to_stop(result: Callable[[], Any]) -> bool:
        now = result()
        try:
            answer = callback(**{KEYWORD: now}) if takes_result else callback(now.x)
        except StopIteration:
            return True
        return isinstance(answer, (bool, np.bool_)) and bool(answer)

    return asks_to_stop


def _takes_result(callback: Callable[..., Any]) -> bool:
    try:
        return KEYWORD in inspect.signature(callback).parameters
    except ValueError:  # some of the built-in functions have none
        return False
