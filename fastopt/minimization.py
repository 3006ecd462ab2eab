"""Minimization in SciPy's form, by the steps of an optimizer."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastopt import optimizers
from fastopt.arrays import FLOATS
from fastopt.hyperparameters import finite
from fastopt.optimizer import Optimizer

Method = str | type[Optimizer]

METHODS: Mapping[str, type[Optimizer]] = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}

# What `minimize` does itself; all other options are arguments of the optimizer.
STOPPING: Mapping[str, Any] = {"maxiter": 1000, "gtol": None, "xtol": None, "ftol": None, "patience": None, "time_limit": None}
OWN: Mapping[str, Any] = {**STOPPING, "best": False, "disp": False, "state": None}

REACHED, MAXITER, STOPPED, TIME, PATIENCE, NOT_FINITE = range(6)
MESSAGES = {
    REACHED: "A tolerance was reached.",
    MAXITER: "The number of steps was reached.",
    STOPPED: "The callback asked to stop.",
    TIME: "The time limit was reached.",
    PATIENCE: "The objective has not improved for a while.",
    NOT_FINITE: "The objective or its gradient is not finite.",
}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    method: Method = "adam",
    jac: Any = None,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Minimize a function of several variables, as `scipy.optimize.minimize` does.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` gives the objective, or with ``jac=True`` a pair of it and the gradient. It may be stochastic. What
        it gets is a read-only view of the point, which moves on with the next step.
    x0 : array-like
        Where to start; it is copied, and raveled. float32 stays float32, all else becomes float64.
    args : tuple, default ()
        More arguments of `fun` and `jac`.
    method : str or type, default "adam"
        The name of an optimizer, in letters of any case, or its class.
    jac : callable, True or None
        ``jac(x, *args)`` gives the gradient; True if `fun` gives it, too; None for finite differences.
    bounds : sequence of pairs, or `scipy.optimize.Bounds`, optional
        Lower and upper bounds of each variable, None for none. No step leaves them.
    tol : float, optional
        The same as the option ``gtol``.
    callback : callable, optional
        Called before each step with the keyword ``intermediate_result``, if it takes an argument of this name, an
        `OptimizeResult` with ``x``, ``fun``, ``jac`` and ``nit``; else with ``x``, a copy each time. To stop, it raises
        StopIteration or returns True.
    options : mapping, optional
        ``maxiter`` (steps, 1000); ``gtol`` (largest element of the gradient, with bounds of the projected one), ``xtol``
        (largest change of a variable in a step), ``ftol`` (change of the objective in a step, relative to the larger of 1 and
        itself), at which to stop; ``patience`` (stop after so many steps in which the objective has not improved by ``ftol``);
        ``time_limit`` (seconds); ``best`` (give the best point that was seen instead of the last, False); ``disp`` (show a
        progress bar, False); ``state`` (of an earlier result, to go on from: its averages and steps, not its
        hyper-parameters); all others are arguments of the optimizer, such as ``lr``.

    Returns
    -------
    OptimizeResult
        With ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``success``, ``status``, ``message``, and ``state``, which a
        later call can take. It is a success unless there were tolerances and none was reached, something is not finite, or
        patience ended above where it began.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> import fastopt
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = fastopt.minimize(rosen, [-1.2, 1.0], jac=rosen_der, options={"lr": 0.02, "maxiter": 5000, "gtol": 1e-6})
    >>> result.success, result.x.round(4)
    (True, array([1., 1.]))
    """
    own, arguments = _split(options, tol)
    x = _start(x0)
    sides = _sides(bounds, x)
    optimizer = _class_of(method)(x, **arguments, **({} if sides is None else {"bounds": sides}))
    if own["state"] is not None:
        _resume(optimizer, own["state"])
    objective = _Objective(fun, jac, args, x, sides, needs_value=_needs_value(own, callback))
    run = _Run(objective, optimizer, x, own, callback)
    return run.result(run.loop())


def scipy_method(method: Method = "adam", **arguments: Any) -> Callable[..., Any]:
    """Make a method for `scipy.optimize.minimize`.

    Parameters
    ----------
    method : str or type, default "adam"
        As for `minimize`.
    **arguments
        Options of `minimize`, for all uses; those that are given to `scipy.optimize.minimize` come before them.

    Returns
    -------
    callable
        For the argument ``method`` of `scipy.optimize.minimize`.

    Raises
    ------
    ValueError
        When it is used with constraints.

    Examples
    --------
    >>> import fastopt, scipy.optimize
    >>> adam = fastopt.scipy_method("adam", lr=0.1, maxiter=500)
    >>> scipy.optimize.minimize(lambda x: ((x - 3) ** 2).sum(), [0.0, 1.0], method=adam).x.round(4)
    array([3., 3.])
    """
    return functools.partial(_minimize_for_scipy, _class_of(method), arguments)


def _minimize_for_scipy(
    cls: type[Optimizer], arguments: Mapping[str, Any], fun: Any, x0: Any, args: tuple[Any, ...] = (), **given: Any
) -> Any:
    """What SciPy calls."""
    given = {**arguments, **given}
    if given.pop("constraints", ()):
        raise ValueError("constraints must be empty: only bounds can be kept")
    known = {key: given.pop(key, None) for key in ("jac", "bounds", "tol", "callback")}
    return minimize(fun, x0, args, cls, **known, options={k: v for k, v in given.items() if k not in ("hess", "hessp")})


class _Objective:
    """The function and its gradient at a point that moves, and how often they were called."""

    def __init__(self, fun: Callable[..., Any], jac: Any, args: Any, x: Any, sides: Any, needs_value: bool) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if not (jac is None or isinstance(jac, (bool, np.bool_)) or callable(jac)):
            raise TypeError(f"jac must be callable, True or None, got {jac!r}")
        self._fun, self._jac = fun, bool(jac) if isinstance(jac, (bool, np.bool_)) else jac
        self._args = args if isinstance(args, tuple) else (args,)
        self._x = x.view()  # read-only: a function that changed it would lead the optimizer astray
        self._x.flags.writeable = False
        self._sides = sides
        self._needs_value = needs_value
        self.nfev = self.njev = 0

    def __call__(self, needs_value: bool = False) -> tuple[float, Any]:
        """The objective, NaN if nobody needs it, and the gradient."""
        self.njev += 1
        if self._jac is True:
            self.nfev += 1
            value, g = self._fun(self._x, *self._args)
            return _number(value), self._vector(g)
        if callable(self._jac):
            value = self._value() if self._needs_value or needs_value else math.nan
            return value, self._vector(self._jac(self._x, *self._args))
        return self._value(), self._vector(self._differences())

    def projected(self, g: Any) -> Any:
        """The gradient, or with bounds how far a step along it can go."""
        return g if self._sides is None else self._x - np.clip(self._x - g, *self._sides)

    def _value(self) -> float:
        self.nfev += 1
        return _number(self._fun(self._x, *self._args))

    def _vector(self, g: Any) -> Any:
        """A gradient as steps take it."""
        # First the way of nearly all: a vector of this dtype with memory of its own.
        if type(g) is np.ndarray and g.dtype is self._x.dtype and g.ndim == 1 and g.flags.owndata:
            return g
        g = np.asarray(g)
        if g.dtype not in FLOATS:
            g = g.astype(self._x.dtype)
        g = g.reshape(-1)
        return g.copy() if np.may_share_memory(g, self._x) else g

    def _differences(self) -> Any:
        from scipy.optimize import approx_fprime

        step = np.full(self._x.size, math.sqrt(np.finfo(self._x.dtype).eps))
        if self._sides is not None:
            step[self._x + step > self._sides[1]] *= -1.0
        self.nfev += 1 + self._x.size
        return approx_fprime(self._x, lambda x: _number(self._fun(x, *self._args)), step)


def _number(value: Any) -> float:
    """An objective as a number: arrays of one element are, too."""
    if isinstance(value, float):  # NumPy's float64, too
        return value
    array = np.asarray(value)
    if array.size != 1:
        raise TypeError(f"fun must give a number, got an array of shape {array.shape}")
    return float(array.reshape(()))


def _resume(optimizer: Optimizer, state: Any) -> None:
    """Take averages and steps from a state, with the hyper-parameters of the present call."""
    if isinstance(state, Mapping):
        own = optimizer.state_dict()
        state = {**state, "groups": own["groups"], "whole": own["whole"]} if {"groups", "whole"} <= state.keys() else state
    optimizer.load_state_dict(state)


class _Run:
    """One minimization."""

    def __init__(
        self, objective: _Objective, optimizer: Optimizer, x: Any, own: Mapping[str, Any], callback: Callable[..., Any] | None
    ) -> None:
        self.objective, self.optimizer, self.x, self.own = objective, optimizer, x, own
        self._callback = callback
        takes_result = callback is not None and "intermediate_result" in inspect.signature(callback).parameters
        self._takes_result = takes_result
        self._best: tuple[float, Any, Any] | None = None
        self._least, self._waited, self._previous = math.inf, 0, math.nan
        self._first = math.nan
        self.nit = 0

    def loop(self) -> int:
        """Take steps until there is a reason to stop."""
        own, x, objective, step = self.own, self.x, self.objective, self.optimizer.step
        looks = any(own[key] is not None for key in ("gtol", "ftol", "patience")) or own["best"]
        deadline = math.inf if own["time_limit"] is None else time.monotonic() + own["time_limit"]
        xtol = own["xtol"]
        with _progress(own["disp"], own["maxiter"]) as advance:
            for self.nit in range(own["maxiter"]):
                value, g = objective()
                if looks and (reason := self._reason(value, g)) is not None:
                    return reason
                if self._callback is not None and self._asks_to_stop(value, g):
                    return STOPPED
                before = x.copy() if xtol is not None else None
                step(g)
                advance(value)
                if before is not None and np.max(np.abs(x - before), initial=0.0) <= xtol:
                    self.nit += 1
                    return REACHED
                if deadline < math.inf and time.monotonic() >= deadline:
                    self.nit += 1
                    return TIME
            self.nit = own["maxiter"]
        return MAXITER

    def _reason(self, value: float, g: Any) -> int | None:
        """Why to stop at a point, if there is a reason."""
        own = self.own
        previous, self._previous = self._previous, value
        if self.nit == 0:
            self._first = value
        if own["best"] and math.isfinite(value) and (self._best is None or value < self._best[0]):
            self._best = value, self.x.copy(), g.copy()
        if own["gtol"] is not None and np.max(np.abs(self.objective.projected(g)), initial=0.0) <= own["gtol"]:
            return REACHED
        ftol = own["ftol"] or 0.0
        least_change = ftol * max(1.0, abs(value)) if math.isfinite(value) else 0.0
        if own["ftol"] is not None and own["patience"] is None and abs(previous - value) <= least_change:
            return REACHED
        if own["patience"] is not None:
            self._waited = 0 if value < self._least - least_change else self._waited + 1
            self._least = min(self._least, value)
            if self._waited >= own["patience"]:
                return PATIENCE
        return None

    def _asks_to_stop(self, value: float, g: Any) -> bool:
        assert self._callback is not None
        try:
            if not self._takes_result:
                answer = self._callback(self.x.copy())
            else:
                from scipy.optimize import OptimizeResult

                now = OptimizeResult(x=self.x.copy(), fun=value, jac=g.copy(), nit=self.nit)
                answer = self._callback(intermediate_result=now)
            return isinstance(answer, (bool, np.bool_)) and bool(answer)
        except StopIteration:
            return True

    def result(self, reason: int) -> Any:
        """What came out, with the objective where it ended."""
        from scipy.optimize import OptimizeResult

        value, g = self.objective(needs_value=True)
        x = self.x
        if self._best is not None and not value < self._best[0]:
            value, x, g = self._best
        if not (math.isfinite(value) and np.all(np.isfinite(g))):
            reason = NOT_FINITE
        has_tolerance = any(self.own[key] is not None for key in ("gtol", "xtol", "ftol"))
        success = reason == REACHED or (reason in (MAXITER, STOPPED) and not has_tolerance)
        success = success or (reason == PATIENCE and value <= self._first)
        return OptimizeResult(
            x=x,
            fun=value,
            jac=g,
            nit=self.nit,
            nfev=self.objective.nfev,
            njev=self.objective.njev,
            success=success,
            status=reason,
            message=MESSAGES[reason],
            state=self.optimizer.state_dict(),
        )


class _progress:  # noqa: N801 - used like a function
    """A progress bar with the objective, if there is to be one: tqdm's."""

    def __init__(self, disp: bool, steps: int) -> None:
        self._bar: Any = None
        if disp:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=steps, unit="step")

    def __enter__(self) -> Callable[[float], None]:
        return self._advance if self._bar is not None else lambda value: None

    def _advance(self, value: float) -> None:
        self._bar.set_postfix(fun=f"{float(value):.6g}", refresh=False)
        self._bar.update()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _class_of(method: Method) -> type[Optimizer]:
    if isinstance(method, type) and issubclass(method, Optimizer):
        return method
    if not isinstance(method, str) or method.lower() not in METHODS:
        raise ValueError(f"method must be a class of optimizers or one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method.lower()]


def _split(options: Mapping[str, Any] | None, tol: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `minimize` itself, checked, and the arguments of the optimizer."""
    given = dict(options or {})
    own = {key: given.pop(key, default) for key, default in OWN.items()}
    if "bounds" in given:
        raise TypeError("bounds must be the argument of minimize, not one of its options")
    if own["gtol"] is None:
        own["gtol"] = tol
    for key in ("gtol", "xtol", "ftol", "time_limit"):
        if own[key] is not None and finite(key, own[key]) < 0:
            raise ValueError(f"{key} must be at least 0, got {own[key]!r}")
    for key in ("maxiter", "patience"):
        value = own[key]
        if key == "patience" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{key} must be an integer, got {value!r}")
        if value < 0:
            raise ValueError(f"{key} must be at least 0, got {value!r}")
    return own, given


def _needs_value(own: Mapping[str, Any], callback: Any) -> bool:
    """Whether somebody looks at the objective in each step."""
    return bool(own["ftol"] is not None or own["patience"] is not None or own["best"] or own["disp"] or callback is not None)


def _start(x0: Any) -> Any:
    x = np.array(x0, copy=True).ravel()
    if x.dtype not in FLOATS:
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x0 must hold real numbers, got {x.dtype}")
        x = x.astype(np.float64)
    return x


def _sides(bounds: Any, x: Any) -> Any:
    """Bounds in the optimizer's form, or None; the start is moved into them."""
    if bounds is None:
        return None
    try:
        if hasattr(bounds, "lb"):
            low, high = (np.array(np.broadcast_to(side, x.shape), np.float64) for side in (bounds.lb, bounds.ub))
        else:
            pairs = [(-np.inf if low is None else low, np.inf if high is None else high) for low, high in bounds]
            low, high = np.array(pairs, np.float64).reshape(-1, 2).T
    except (TypeError, ValueError) as error:
        raise TypeError(f"bounds must be pairs of numbers or None, or SciPy's Bounds, got {bounds!r}: {error}") from None
    if low.size != x.size:
        raise ValueError(f"bounds must be a pair for each of {x.size} variables, got {low.size} items")
    np.clip(x, low, high, out=x)
    return np.ascontiguousarray(low), np.ascontiguousarray(high)
