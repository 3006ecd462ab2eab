"""The options of a minimization, checked, apart from the arguments of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt import optimizers
from fastopt.description.hyperparameters import Check, OneOf, boolean, hint, integer, nonnegative_or_infinite
from fastopt.optimizer import Optimizer

Method = str | type[Optimizer]

METHODS: Mapping[str, type[Optimizer]] = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}

# At which a minimization has found what it looked for.
TOLERANCES = ("gtol", "xtol", "ftol")

DEFAULT_GTOL = 1e-5  # as of SciPy's BFGS and L-BFGS-B


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _at_least_one(name: str, value: Any) -> int:
    return integer(name, value, least=1)


def _history(name: str, value: Any) -> int | None:
    """None for no history; else of every how many points to keep a copy, 0 for none."""
    if isinstance(value, bool):
        return 0 if value else None
    return integer(name, value)


# What the solver does itself, by name: the default, and what a value must be. All other options are arguments of the optimizer.
OWN: Mapping[str, tuple[Any, Check]] = {
    "maxiter": (1000, integer),
    "gtol": (DEFAULT_GTOL, _or_none(nonnegative_or_infinite)),
    "xtol": (None, _or_none(nonnegative_or_infinite)),
    "ftol": (None, _or_none(nonnegative_or_infinite)),
    "patience": (None, _or_none(integer)),
    "time_limit": (None, _or_none(nonnegative_or_infinite)),
    "best": (False, boolean),
    "noisy": (False, boolean),
    "history": (None, _history),
    "x_scale": (None, lambda name, value: value),
    "g_scale": (None, lambda name, value: value),
    "nonfinite": ("stop", OneOf("stop", "skip", "raise")),
    "max_skips": (10, _at_least_one),
    "state": (None, lambda name, value: value),
}

# What only `minimize` does, which calls the function.
OF_MINIMIZE: Mapping[str, tuple[Any, Check]] = {
    "disp": (False, boolean),
    "interrupt": ("raise", OneOf("raise", "return")),
}


def class_of(method: Method) -> type[Optimizer]:
    """The optimizer of a method's name, or itself."""
    if isinstance(method, type) and issubclass(method, Optimizer):
        return method
    if not isinstance(method, str) or method.lower() not in METHODS:
        raise ValueError(f"method must be a class of optimizers or one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method.lower()]


def taken(known: Mapping[str, tuple[Any, Check]], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of known options, checked, and the rest of what was given."""
    own = {key: check(key, given[key]) if key in given else default for key, (default, check) in known.items()}
    return own, {key: value for key, value in given.items() if key not in known}


def require_arguments(cls: type[Optimizer], names: Mapping[str, Any]) -> None:
    """Raise TypeError unless all names are arguments of the optimizer, with what else there would be."""
    arguments = {**cls.fields, **cls.common}
    if "reduce" in names:
        raise TypeError("reduce is not for minimize, whose tests for stopping go over all ranks as well; give it comm")
    for name in names:
        if name not in arguments:
            options = [*OWN, *OF_MINIMIZE]
            meant = hint(name, arguments) or hint(name, options)
            raise TypeError(
                f"{cls.__name__} has no argument {name!r}{meant}, and there is no such option; the options are "
                f"{', '.join(options)}, and the arguments {', '.join(arguments)}"
            )


def mapping_of(options: Mapping[str, Any] | None, tol: float | None) -> dict[str, Any]:
    """The options as a dict, with what the argument ``tol`` of `minimize` stands for."""
    if not (options is None or isinstance(options, Mapping)):
        raise TypeError(f"options must be a mapping, got {options!r}")
    given = dict(options or {})
    if "starts" in given:
        raise TypeError("starts must be an argument of Solver: minimize has a single one, x0")
    for name in ("x0", "method", "bounds", "callback"):
        if name in given:
            raise TypeError(f"{name} must be the argument of minimize, not one of its options")
    return given if tol is None else {"gtol": tol, **given}
