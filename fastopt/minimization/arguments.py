"""What `minimize` is given, checked: the start, the bounds, the options, the optimizer."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt import optimizers
from fastopt.arrays.layout import FLOATS
from fastopt.description.hyperparameters import Check, boolean, integer, nonnegative_or_infinite, real
from fastopt.optimizer import Optimizer

Method = str | type[Optimizer]

METHODS: Mapping[str, type[Optimizer]] = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}

# What `minimize` does itself; all other options are arguments of the optimizer.
TOLERANCES: Mapping[str, Any] = {"gtol": None, "xtol": None, "ftol": None}
OWN: Mapping[str, Any] = {
    "maxiter": 1000,
    **TOLERANCES,
    "patience": None,
    "time_limit": None,
    "best": False,
    "disp": False,
    "state": None,
}

CHECKS: Mapping[str, Check] = {
    "maxiter": integer,
    "patience": integer,
    "best": boolean,
    "disp": boolean,
    **dict.fromkeys((*TOLERANCES, "time_limit"), nonnegative_or_infinite),
}


def class_of(method: Method) -> type[Optimizer]:
    """The optimizer of a method's name, or itself."""
    if isinstance(method, type) and issubclass(method, Optimizer):
        return method
    if not isinstance(method, str) or method.lower() not in METHODS:
        raise ValueError(f"method must be a class of optimizers or one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method.lower()]


def split(options: Mapping[str, Any] | None, tol: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `minimize` itself, checked, and the arguments of the optimizer."""
    if not (options is None or isinstance(options, Mapping)):
        raise TypeError(f"options must be a mapping, got {options!r}")
    given = dict(options or {})
    if "bounds" in given:
        raise TypeError("bounds must be the argument of minimize, not one of its options")
    if "reduce" in given:
        raise TypeError(
            "reduce is not for minimize, whose tests for stopping are those of one process; take the steps yourself"
        )
    own = {key: given.pop(key, default) for key, default in OWN.items()}
    if own["gtol"] is None:
        own["gtol"] = tol
    for key, check in CHECKS.items():
        if own[key] is not None or OWN[key] is not None:
            own[key] = check(key, own[key])
    return own, given


def needs_value(own: Mapping[str, Any], callback: Callable[..., Any] | None) -> bool:
    """Whether somebody looks at the objective in each step."""
    return bool(own["ftol"] is not None or own["patience"] is not None or own["best"] or own["disp"] or callback is not None)


def start_of(x0: Any) -> NDArray[Any]:
    """A copy of the start as a vector of a floating dtype."""
    if np.ma.is_masked(x0):
        raise TypeError(f"x0 must have no mask, got {x0!r}; the option mask leaves variables as they are")
    try:
        x = np.array(x0, copy=True).ravel()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"x0 must be an array of real numbers, got {x0!r}") from None
    if x.dtype not in FLOATS:
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x0 must hold real numbers, got {x.dtype}")
        x = x.astype(np.float64)
    return x


def sides_of(bounds: Any, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Lower and upper bounds in the dtype of the variables, between those that were given; the start is moved into them."""
    if bounds is None:
        return None
    low, high = _of_scipy(bounds, x) if hasattr(bounds, "lb") else _of_pairs(bounds, x)
    if wrong := np.flatnonzero(~(low <= high)).tolist():  # with NaN, too
        pair = low[wrong[0]].item(), high[wrong[0]].item()
        raise ValueError(f"bounds must have no lower bound above the upper one, and no NaN, got {pair} for variable {wrong[0]}")
    lower, upper = _rounded(low, x.dtype, np.inf), _rounded(high, x.dtype, -np.inf)
    between = lower <= upper
    if not np.all(between):  # no number of the dtype lies in the interval
        lower, upper = (np.where(between, side, low.astype(x.dtype)) for side in (lower, upper))
    np.clip(x, lower, upper, out=x)
    return lower, upper


@np.errstate(over="ignore")
def _rounded(side: NDArray[Any], dtype: np.dtype[Any], towards: float) -> NDArray[Any]:
    """Bounds as numbers of a dtype, in this direction where they are none."""
    near = side.astype(dtype)
    outside = near < side if towards > 0 else near > side
    return np.where(outside, np.nextafter(near, dtype.type(towards)), near)


def _of_scipy(bounds: Any, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    sides = []
    for name in ("lb", "ub"):
        side = np.asarray(getattr(bounds, name))
        if side.dtype.kind not in "biuf":
            raise TypeError(f"bounds.{name} must hold real numbers, got {side.dtype}")
        if side.size != 1 and side.size != x.size:
            raise ValueError(f"bounds.{name} must have an item for each of {x.size} variables, got {side.size}")
        sides.append(np.full(x.size, side.reshape(-1), np.float64))
    return sides[0], sides[1]


def _of_pairs(bounds: Any, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        pairs = np.asarray(bounds if hasattr(bounds, "__array__") else list(bounds))
    except (TypeError, ValueError):  # no sequence, or items of several lengths
        pairs = np.array("")
    if np.ma.is_masked(bounds) or pairs.dtype.kind not in "biufO" or (pairs.size and pairs.shape[1:] != (2,)):
        raise TypeError(f"bounds must be pairs of numbers or None, or SciPy's Bounds, got {reprlib.repr(bounds)}")
    pairs = pairs.reshape(-1, 2)
    if len(pairs) != x.size:
        raise ValueError(f"bounds must be a pair for each of {x.size} variables, got {len(pairs)} items")
    if pairs.dtype.kind == "O":
        missing = [-np.inf, np.inf] * x.size
        values = [real("bounds", none if each is None else each) for each, none in zip(pairs.flat, missing, strict=True)]
        pairs = np.array(values).reshape(-1, 2)
    low, high = pairs.astype(np.float64).T
    return low, high
