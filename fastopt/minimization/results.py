"""What comes out of a minimization, in SciPy's form, at its end and on the way, where callbacks look at it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastopt.minimization.history import History

KEYWORD = "intermediate_result"


def result_of(fields: Mapping[str, Any], history: History | None) -> Any:
    """A result as SciPy's methods give it, with the history, if there is one, and its picture."""
    from scipy.optimize import OptimizeResult

    result = OptimizeResult(fields)
    if history is not None:
        result.history = history
        object.__setattr__(result, "plot", history.plot)  # no item, or it would be shown as one
    return result


def result_so_far(fields: Mapping[str, Any], make_state: Callable[[], Any]) -> Any:
    """A result whose item ``state``, a copy of all there is, is made when it is looked at, before the minimization goes on."""
    result = _unfinished()(fields)
    object.__setattr__(result, "make_state", make_state)
    return result


@functools.cache
def _unfinished() -> type[Any]:
    from scipy.optimize import OptimizeResult

    class Unfinished(OptimizeResult):  # type: ignore[misc]
        def __missing__(self, key: str) -> Any:
            if key != "state":
                raise KeyError(key)
            self["state"] = object.__getattribute__(self, "make_state")()
            return self["state"]

        def __reduce__(self) -> Any:
            return OptimizeResult, ({"state": self["state"], **self},)

    return Unfinished


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
