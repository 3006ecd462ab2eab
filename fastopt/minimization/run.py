"""One minimization: steps until there is a reason to stop, and what came out."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastopt.minimization.arguments import TOLERANCES
from fastopt.minimization.objective import Objective
from fastopt.optimizer import Optimizer

REACHED, MAXITER, TIME, PATIENCE, NOT_FINITE = 0, 1, 3, 4, 5
STOPPED = 99  # as in SciPy
MESSAGES = {
    REACHED: "A tolerance was reached.",
    MAXITER: "The number of steps was reached.",
    STOPPED: "The callback asked to stop.",
    TIME: "The time limit was reached.",
    PATIENCE: "The objective has not improved for a while.",
    NOT_FINITE: "The objective or its gradient is not finite.",
}


LENGTH_FOR_BLAS = 4096  # OpenBLAS begins to share work above 10,000


class Run:
    """One minimization.

    Parameters
    ----------
    objective : Objective
        What is minimized.
    optimizer : Optimizer
        What takes the steps.
    x : ndarray, shape (n,)
        The point; it moves.
    own : mapping
        The options of `minimize`.
    callback : callable or None
        As `minimize` takes it.
    """

    def __init__(
        self, objective: Objective, optimizer: Optimizer, x: Any, own: Mapping[str, Any], callback: Callable[..., Any] | None
    ) -> None:
        self.objective, self.optimizer, self.x, self.own = objective, optimizer, x, own
        self._callback, self._takes_result = callback, _takes_result(callback)
        self._best: tuple[float, Any, Any] | None = None
        self._least, self._waited, self._previous = math.inf, 0, math.nan
        self._first = math.nan
        self._before = x.copy()  # the point before the last step
        self._where = ""
        self.nit = 0

    def loop(self) -> int:
        """Take steps until there is a reason to stop."""
        own, x, before, objective, step = self.own, self.x, self._before, self.objective, self.optimizer.step
        looks = any(own[key] is not None for key in ("gtol", "ftol", "patience")) or own["best"]
        deadline = math.inf if own["time_limit"] is None else time.monotonic() + own["time_limit"]
        xtol = own["xtol"]
        with _progress(own["disp"], own["maxiter"]) as advance:
            for self.nit in range(own["maxiter"]):
                value, g = objective()
                if self._went_astray(g):
                    return NOT_FINITE
                if looks and (reason := self._reason(value, g)) is not None:
                    return reason
                if self._callback is not None and self._asks_to_stop(value, g):
                    return STOPPED
                np.copyto(before, x)
                step(g)
                advance(value)
                if xtol is not None and np.max(np.abs(x - before), initial=0.0) <= xtol:
                    self.nit += 1
                    return REACHED
                if deadline < math.inf and time.monotonic() >= deadline:
                    self.nit += 1
                    return TIME
            self.nit = own["maxiter"]
        return MAXITER

    def _went_astray(self, g: Any) -> bool:
        """Whether the point or its gradient is not finite, and steps would only go on so; then the point is the one before."""
        if math.isfinite(_product(self.x, g)) or self.optimizer.nonfinite != "propagate":
            return False
        mask = self.optimizer.param_groups[0]["mask"]
        for what, array in (("x", self.x), ("the gradient", g)):
            wrong = np.flatnonzero(~np.isfinite(array) if mask is None else ~np.isfinite(array) & mask)
            if wrong.size:
                self._where = f" After {self.nit} steps element {wrong[0]} of {what} is {array[wrong[0]]}"
                self._where += ", x is the point before." if self.nit else "."
                self.x[...] = self._before
                self.nit = max(self.nit - 1, 0)
                return True
        return False

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
        if reason != NOT_FINITE and self._went_astray(g):  # by the last step
            reason = NOT_FINITE
            value, g = self.objective(needs_value=True)
        x = self.x
        if self._best is not None and not value < self._best[0]:
            value, x, g = self._best
        if not (math.isfinite(value) and np.all(np.isfinite(g))):
            reason = NOT_FINITE
        has_tolerance = any(self.own[key] is not None for key in TOLERANCES)
        success = reason == REACHED or (reason == MAXITER and not has_tolerance)
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
            message=MESSAGES[reason] + self._where,
            state=self.optimizer.state_dict(),
        )


@np.errstate(all="ignore")
def _product(x: Any, g: Any) -> Any:
    """The sum of products, which shows in one pass whether both are finite; only where it is too large nothing is known."""
    # For long vectors a threaded BLAS would take other cores, and let them wait in loops when the step comes.
    return x.dot(g) if x.size <= LENGTH_FOR_BLAS else np.einsum("i,i->", x, g)


def _takes_result(callback: Callable[..., Any] | None) -> bool:
    """Whether a callback takes the keyword ``intermediate_result``."""
    if callback is None:
        return False
    if not callable(callback):
        raise TypeError(f"callback must be callable or None, got {callback!r}")
    try:
        return "intermediate_result" in inspect.signature(callback).parameters
    except ValueError:  # some of the built-in functions have none
        return False


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
