"""What comes out of a minimization, in SciPy's form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fastopt.minimization.history import History


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
