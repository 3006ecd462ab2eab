"""A minimization that is asked for points and told what is found there."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import array_of
from fastopt.minimization.answers import gradient_of, number_of, what_is_not
from fastopt.minimization.bounds import Box, bounds_of
from fastopt.minimization.checkpoints import State, load, saved
from fastopt.minimization.history import Best, History
from fastopt.minimization.noise import Plateau, Plateaus
from fastopt.minimization.options import OWN, Method, class_of, require_arguments, taken
from fastopt.minimization.points import points_of, start_of
from fastopt.minimization.populations import Population, buffer_of, starts_of
from fastopt.minimization.ranks import Ranks
from fastopt.minimization.results import callback_of, result_of, result_so_far
from fastopt.minimization.scaling import scaling_of
from fastopt.minimization.stopping import MESSAGES, NOT_FINITE, STOPPED, Test, Told, is_success, tests_of
from fastopt.mpi.agreement import together

Array = NDArray[Any]

STANDING = 5  # steps, after which those of every optimizer have begun to move


class Solver:
    """A minimization by the steps of an optimizer, for programs that ask for a point and tell what they found there.

    `minimize` is a loop over it, for a function that can be called.

    Parameters
    ----------
    x0 : array-like, optional
        Where to start; it is copied, and raveled. float32, complex64 and complex128 stay, all else becomes float64.
    method : str or type, default "adam"
        The name of an optimizer, in letters of any case, or its class.
    bounds : sequence or array of pairs, or `scipy.optimize.Bounds`, optional
        As `minimize` takes them. No point that is asked for lies outside of them.
    callback : callable, optional
        As `minimize` takes it.
    starts : array-like, shape (k, n), optional
        Many starts in place of `x0`, stepped together. Points and gradients then have a row for each, and values an item. The
        tolerances hold for all of them, the options that look at the objective look at the least one, and so is the result's,
        which has all of them as ``population`` and ``population_energies``. A start is lost where something is not finite, and
        it stops when all are. With ``noisy`` each has a test of its own: it stops when all of them have passed it, and gives
        the best window of each.
    comm : mpi4py.MPI.Comm, optional
        As `minimize` takes it; not with `starts`.
    **options
        The options of `minimize`, but for ``disp`` and ``interrupt``; all others are arguments of the optimizer.

    Attributes
    ----------
    mask : ndarray of bool, or None
        Which variables move, of many starts one after the other; None if all do.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> solver = fastopt.Solver([0.0, 1.0], lr=0.1)
    >>> while not solver.done:
    ...     x = solver.ask()
    ...     solver.tell(((x - 3.0) ** 2).sum(), 2.0 * (x - 3.0))
    >>> solver.result().x.round(4)
    array([3., 3.])
    """

    def __init__(
        self,
        x0: Any = None,
        method: Method = "adam",
        bounds: Any = None,
        callback: Callable[..., Any] | None = None,
        *,
        starts: Any = None,
        comm: Any = None,
        **options: Any,
    ) -> None:
        with together(comm):  # what is refused on one rank is on all
            cls = class_of(method)
            own, arguments = taken(OWN, options)
            require_arguments(cls, arguments)
            self._asks_to_stop = callback_of(callback)
            if (x0 is None) == (starts is None):
                raise TypeError(f"a solver must have either x0 or starts, got {'neither' if x0 is None else 'both'}")
            rows = start_of(x0).reshape(1, -1) if starts is None else starts_of(starts)
            box = bounds_of(bounds, rows[0], arguments.get("complex_mode") == "modulus")
            if box is not None:
                for row in rows:
                    box.move_inside(row)
            start = rows[0] if starts is None else rows
            params: Any = start if starts is None else buffer_of(rows)
            stepped = start if starts is None else params.buffer
            self._scaling = scaling_of(own, stepped, start, box)
            x = stepped if self._scaling is None else self._scaling.x
            self._own, self._told, self._bounds = own, Told(x), box
            of_all = None if box is None else box.repeated(len(rows))
            limits = of_all if self._scaling is None else self._scaling.bounds
            if limits is not None:
                arguments = {"project_gradient": True, **arguments, "bounds": limits.for_steps}
        self._ranks = None if comm is None else Ranks(comm, own, starts)
        self._optimizer = cls(params, **arguments) if self._ranks is None else self._ranks.optimizer(cls, params, arguments)
        self._population = None if starts is None else Population(self._told, len(rows), self._optimizer)
        self.mask: Array | None = array_of(self._optimizer.param_groups[0]["mask"])
        self._look_out(of_all)
        if self._ranks is not None:
            self._asks_to_stop = self._ranks.agreed(self._asks_to_stop)
        self._points = points_of(x, moves_by_steps=starts is None)  # of many starts, those that are lost are moved back
        self._status: int | None = None
        self._where = ""  # what was not finite
        self._skips = self._nfev = 0
        self._is_asked = self._has_moved = False
        with together(comm):
            if own["state"] is not None:
                load(own["state"], x.reshape(start.shape), self._optimizer, self._memories())

    def _look_out(self, bounds: Box | None) -> None:
        """Have what looks at points: tests, and others that take note of them."""
        own, told = self._own, self._told
        self._plateau: Plateau | Plateaus | None = None
        if own["noisy"]:
            self._plateau = Plateau(told) if self._population is None else Plateaus(told, self._population)
        self._tests: list[Test] = [*([] if self._plateau is None else [self._plateau]), *tests_of(own, told, bounds)]
        self._best = Best(told) if own["best"] else None
        self._history = None if own["history"] is None else History(told, lambda: self.rate, own["history"])
        others = (self._population, self._best, self._history)
        self._watchers: list[Any] = [each for each in (*self._tests, *others) if each is not None and each.memory]
        if self._ranks is not None:
            self._tests = [self._ranks.agreeing(told, self._tests)]

    def _memories(self) -> list[Any]:
        return [self._told, *self._watchers, *([] if self._scaling is None else [self._scaling])]

    def _shaped(self, x: Array) -> Array:
        return x if self._population is None else x.reshape(self._population.shape)

    @property
    def done(self) -> bool:
        """Whether there was a reason to stop."""
        return self._status is not None

    @property
    def message(self) -> str:
        """Why it has ended, if it has."""
        return MESSAGES.get(self._status, MESSAGES[STOPPED]) + self._where

    @property
    def nit(self) -> int:
        """How many steps were taken."""
        return self._told.nit

    @property
    def needs_value(self) -> bool:
        """Whether it must be told the objective's value, since some option or the callback looks at it."""
        return bool(self._watchers) or self._asks_to_stop is not None

    @property
    def bounds(self) -> Box | None:
        """What points are kept in, each start for itself; None without bounds."""
        return self._bounds

    @property
    def rate(self) -> Any:
        """The learning rate of the last step, a number or an array; NaN before the first one where a schedule gives it."""
        rate = self._optimizer.param_groups[0].current["lr"]
        return math.nan if callable(rate) else rate

    @property
    def state(self) -> State:
        """A copy of all that a later solver needs to go on with the same bits: its option ``state``.

        It goes on so from the same point, ``state["x"]``, or the same starts, which are its rows. From another one it takes
        over averages and steps only, and hyper-parameters are always those of the new solver.
        """
        return saved(self._shaped(self._told.x), self._optimizer, self._memories())

    def on_any_rank(self, is_so: bool) -> bool:
        """Whether something is so; with `comm` on any rank, and all must ask.

        Parameters
        ----------
        is_so : bool
            On this rank.

        Returns
        -------
        bool
        """
        return is_so if self._ranks is None else self._ranks.any(is_so)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """A ``with`` block around an evaluation and what is told of it: with `comm` an exception on one rank is one on all.

        Returns
        -------
        context manager
        """
        return contextlib.nullcontext() if self._ranks is None else self._ranks.together()

    def ask(self) -> Array:
        """The point to evaluate.

        Returns
        -------
        ndarray, shape (n,), or (k, n)
            The caller's own, to keep and to write to. It is the same point until something was told. Once `done`, it is the
            last one.
        """
        self._is_asked = True
        return self._shaped(self._points.copy())

    def tell(self, value: Any, gradient: Any) -> None:
        """Tell what was found at the point that was asked for last; unless there is a reason to stop, a step is taken.

        Parameters
        ----------
        value : float or None, or array-like of shape (k,)
            The objective there; None if it is not known, and no option looks at it.
        gradient : array-like
            The gradient, with an element for each variable, in any shape; only read, and not kept.

        Raises
        ------
        TypeError, ValueError
            If one of them is not allowed; with ``nonfinite="raise"`` if one is not finite. Nothing has changed then.
        RuntimeError
            If it is done, or no point was asked for since it was told last.
        """
        if self._status is not None:
            raise RuntimeError(f"the solver is done, and can be told no more: {self.message}")
        if not self._is_asked:
            raise RuntimeError("the solver must be asked for a point before it is told what was found there")
        told = self._told
        g = gradient_of(gradient, "tell", told.x)
        if self.mask is not None:
            g = np.where(self.mask, g, g.dtype.type(0))  # what is left as it is has no say in any test
        if self._population is not None:
            values = self._population.checked(value)
            if self._own["nonfinite"] == "raise" and (wrong := self._population.wrong(values, g)):
                raise ValueError(f"what is told must be finite, but after {told.nit} steps {wrong}")
            value, g = self._population.take(values, g)
        elif value is not None and type(value) is not float:
            value = number_of(value, "tell")
        is_odd = not (self._points.are_finite(g) and (value is None or math.isfinite(value)))
        if self._ranks is not None:
            value, is_odd = self._ranks.heard(value, is_odd)
        if is_odd and self._is_refused(value, g):
            return
        told.value, told.gradient = math.nan if value is None else value, g
        self._is_asked = False
        self._nfev += 1
        self._skips = 0
        self._judge()
        if self._status is None:
            self._step(g)
            if told.nit <= STANDING and not self._has_moved:
                self._look_whether_it_moves(g)
        else:
            told.gradient = g.copy()  # it is the caller's

    def _step(self, g: Array) -> None:
        """Take a step, and be at another point."""
        told, count = self._told, self._optimizer.step_count
        told.before = self._points.before(told.before)
        here = told.nit, told.gradient, told.is_seen
        told.nit, told.gradient, told.is_seen = told.nit + 1, None, False
        try:
            if self._scaling is None:
                self._optimizer.step(g)
            else:
                self._scaling.step(self._optimizer, g)
        except BaseException:
            if self._optimizer.step_count == count:  # else an interrupt has followed the step
                told.nit, told.gradient, told.is_seen = here
            raise
        if self._population is not None and self._population.restore() and self._scaling is not None:
            self._scaling.take()

    def _look_whether_it_moves(self, g: Array) -> None:
        """Say so, if the first steps have changed no variable because they are too small for its dtype."""
        told, name = self._told, type(self._optimizer).__name__
        self._has_moved = not np.array_equal(told.x, told.before)
        if told.nit == STANDING and not self._has_moved and g.any() and np.any(self.rate):
            warnings.warn(
                f"the first {STANDING} steps of {name} have changed no variable: they are smaller than what {told.x.dtype} "
                f"resolves at {np.abs(told.x).max():.6g}; a larger lr (for Prodigy d0), x_scale, or float64 lets it move",
                RuntimeWarning,
                stacklevel=3,
            )

    def _judge(self) -> None:
        """Look whether there is a reason to stop at the present point."""
        told = self._told
        if self._where:  # it is the one before the last
            self._status = NOT_FINITE
            return
        is_new, told.is_seen = not told.is_seen, True
        if is_new:
            if told.nit == 0:
                told.first = told.value
            for watcher in self._watchers:
                watcher.see()
        for test in self._tests:
            self._status = test.reason()
            if self._status is not None:
                break
        if self._asks_to_stop is not None and is_new and told.nit and self._asks_to_stop(self._so_far) and not self.done:
            self._status = STOPPED

    def _is_refused(self, value: float | None, g: Array) -> bool:
        """Whether something is not finite; then the same point is asked for again, or that before, or it has ended."""
        told, own = self._told, self._own
        wrong = what_is_not(told.x, g, value, self.mask)
        if self._ranks is not None:
            wrong = self._ranks.refused(wrong)
        if not wrong or self._where:
            return False
        if own["nonfinite"] == "raise":
            raise ValueError(f"what is told must be finite, but after {told.nit} steps {wrong}")
        self._is_asked = False
        self._nfev += 1
        self._skips += 1
        may_skip = own["nonfinite"] == "skip" and self._skips < own["max_skips"]
        if may_skip and not self.on_any_rank(not np.all(np.isfinite(told.x))):
            return True
        self._where = f" After {told.nit} steps {wrong}"
        if told.nit == 0:
            told.value, told.gradient = math.nan if value is None else value, g.copy()
            self._where += "."
            self._status = NOT_FINITE
        else:
            told.x[...] = told.before
            if self._scaling is not None:
                self._scaling.take()
            told.nit -= 1
            self._where += ", x is the point before."
        return True

    def stop(self, status: int = STOPPED) -> None:
        """End it here, as a callback does.

        Parameters
        ----------
        status : int, default 99
            What the result has as its status.
        """
        if self._status is None:
            self._status = status

    def result(self) -> Any:
        """What came out, or what is known so far.

        Returns
        -------
        OptimizeResult
            With ``x``, ``fun``, ``jac``, ``nit``, ``nfev`` (how often it was told something), ``success``, ``status``,
            ``message`` and ``state``. While a point is asked for that nothing was told of, it has the one before; then ``jac``
            is None, for gradients are not kept.
        """
        result = self._found()
        if self._plateau is not None:
            result |= self._plateau.fields()
            if self._bounds is not None:  # means of points on a ring are not
                for x in (result["x"], *result.get("population", ())):
                    self._bounds.move_inside(x)
        elif self._best is not None and self._best.value <= result["fun"]:
            result |= self._best.fields()
        return result_of({**result, **self._ended(result["fun"]), "state": self.state}, self._history)

    def _so_far(self) -> Any:
        found = self._found()
        return result_so_far({**found, **self._ended(found["fun"])}, lambda: self.state)

    def _found(self) -> dict[str, Any]:
        told = self._told
        more = {} if self._population is None else self._population.fields()
        if told.gradient is None:
            return {"x": told.before[told.part].copy(), "fun": told.value, "jac": None, "nit": max(told.nit - 1, 0), **more}
        x, g = told.x[told.part].copy(), told.gradient[told.part].copy()
        return {"x": x, "fun": told.value, "jac": g, "nit": told.nit, **more}

    def _ended(self, value: float) -> dict[str, Any]:
        success = is_success(self._status, self._own, has_improved=value <= self._told.first)
        return {"nfev": self._nfev, "success": success, "status": self._status, "message": self.message}
