"""`minimize`, and the method for SciPy's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastopt.minimization.objective import Objective
from fastopt.minimization.options import OF_MINIMIZE, OWN, Method, class_of, mapping_of, taken
from fastopt.minimization.progress import Progress
from fastopt.minimization.solver import Solver
from fastopt.minimization.stopping import INTERRUPTED, MESSAGES, NOT_FINITE
from fastopt.mpi.agreement import together
from fastopt.optimizer import Optimizer


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
    comm: Any = None,
) -> Any:
    """Minimize a function of several variables, as `scipy.optimize.minimize` does.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` gives the objective, or with ``jac=True`` a pair of it and the gradient. It may be stochastic. The
        array that it gets is its own each time, to keep and to write to.
    x0 : array-like
        Where to start; it is copied, and raveled. float32, complex64 and complex128 stay, all else becomes float64.
    args : tuple, default ()
        More arguments of `fun` and `jac`.
    method : str or type, default "adam"
        The name of an optimizer, in letters of any case, or its class.
    jac : callable, bool, str or None
        ``jac(x, *args)`` gives the gradient, in any shape with as many elements; True if `fun` gives it, too. For finite
        differences None or ``"2-point"``, or ``"3-point"``, which never leave the bounds, or ``"cs"`` (complex steps). The
        gradient for a complex variable is the derivative by its real part plus i times that by its imaginary part.
    bounds : sequence or array of pairs, one pair for all, or `scipy.optimize.Bounds`, optional
        Lower and upper bounds of each variable, None for none; of complex ones for both parts, or, with
        ``complex_mode="modulus"``, for the modulus. No step leaves them. What is no number of the dtype is rounded
        to the next one between the bounds, or to the nearest if none lies between.
    tol : float, optional
        The same as the option ``gtol``.
    callback : callable, optional
        Called after each step, when the new point was evaluated, the last one too: with the keyword ``intermediate_result``, if
        it takes an argument of this name, a result so far, whose ``state`` is a checkpoint; else with ``x``, a copy each time.
        To stop, it raises StopIteration or returns True; as in SciPy, that is no success, and the status 99.
    options : mapping, optional
        See Notes.
    comm : mpi4py.MPI.Comm, optional
        The ranks, if each has variables of its own, a part of a domain, say, and `fun` gives the objective of all. They take
        the same number of steps: ``gtol`` and ``xtol`` hold if they do for the variables of each, ``time_limit`` and the
        callback, which some ranks may have alone, end all if one does. What is not finite, or raises, on one rank, ends all.
        The result has this rank's variables. Not with ``noisy``, ``history`` and ``g_scale="auto"``, nor without `jac`.

    Returns
    -------
    OptimizeResult
        With ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``success``, ``status``, ``message``, and ``state``, with
        which a later call goes on. Its arrays are nobody else's.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The options, all others are arguments of the optimizer, such as ``lr``. Where its ``mask`` leaves variables as they are, the
    gradient counts as 0, in the result, too:

    - ``maxiter``: how many steps to take at most (1000).
    - ``gtol``: stop where the largest element of the gradient is at most this (1e-5), but for what would lead out of active
      bounds; ``xtol``: where the largest change of a variable in a step is; ``ftol``: where the change of the objective in a
      step is, relative to the larger of 1 and itself. With ``"gtol": None``, and no other tolerance, the number of steps is all
      that is asked for, and reaching it a success.
    - ``patience``: stop after so many steps in which the objective has not improved by ``ftol``.
    - ``time_limit``: stop after so many seconds.
    - ``best``: give the best point that was seen instead of the last (False).
    - ``history``: keep the objective, the norm of the gradient, the rate and the time of each point, and with a number instead
      of True a copy of every so many points; the result then has a ``history`` with ``values``, ``norms``, ``rates``,
      ``times`` and ``points``, and ``plot()`` draws it.
    - ``x_scale``: the size of the variables, one number or one for each; ``"bounds"``, how far these are apart; or ``"auto"``,
      that where they are finite, else how large the start is, or 1. Steps are then taken in units of it, so that one ``lr``
      fits metres and micrometres.
    - ``g_scale``: the unit of gradients, a number, or ``"auto"``, the root mean square of the first one. It makes ``eps``,
      which has the unit of the gradient, a share of it.
    - ``noisy``: values and gradients are drawn (False). It stops with the status 7 where the objective no longer falls, as far
      as its noise lets one see, and gives the mean of the points, the values and the gradients of the best of the windows of
      steps that it looks at. ``gain`` is by how much the objective would fall in another window, as the slope of the last one
      has it, and ``gain_error`` the standard error of that.
    - ``nonfinite``: what to do where the objective, its gradient or the point is not finite: ``"stop"`` (the default),
      ``"skip"``, which evaluates the same point again, for stochastic objectives, and stops after ``max_skips`` (10) in a row,
      or ``"raise"``. To stop is to evaluate the last point that was finite again, which is then the result; ``message`` says
      which element it was, and ``state`` has averages of one step more.
    - ``state``: of an earlier result, to go on from. From the point that it belongs to, its ``x``, with the same bits, stopping
      tests included; from another one with its averages and steps only. Hyper-parameters are those of the call, and ``maxiter``
      counts the steps of the call.
    - ``disp``: show a progress bar, if tqdm is installed, or some lines (False).
    - ``interrupt``: after KeyboardInterrupt ``"raise"`` it, or ``"return"`` the result so far, with the status 6.

    The statuses are 0, a tolerance was reached; 1, the number of steps was reached; 3, the time limit was reached; 4, the
    patience ended (a success, if the objective is not above where it began); 5, something is not finite; 6, interrupted; 7,
    the end of the descent under noise (a success); 99, the callback asked to stop.

    Examples
    --------
    >>> import fastopt
    >>> from scipy.optimize import rosen, rosen_der
    >>> options = {"lr": 0.02, "maxiter": 5000, "gtol": 1e-6}
    >>> result = fastopt.minimize(rosen, [-1.2, 1.0], jac=rosen_der, options=options)
    >>> result.success, result.x.round(4)
    (True, array([1., 1.]))
    """
    with together(comm):  # what is refused on one rank is on all
        of_minimize, given = taken(OF_MINIMIZE, mapping_of(options, tol))
        if comm is not None and (isinstance(jac, str) or not jac):
            raise ValueError(f"jac must give the gradient with comm: all ranks would take differences at once; got {jac!r}")
    solver = Solver(x0, method, bounds, callback, comm=comm, **given)
    shows = of_minimize["disp"]
    progress = Progress(shows, given.get("maxiter", OWN["maxiter"][0]))
    needs_value = solver.on_any_rank(solver.needs_value or shows)
    with together(comm):
        objective = Objective(fun, jac, args, solver.bounds, needs_value)
    try:
        while not solver.done:
            nit = solver.nit
            with solver.together():
                value, g = objective(solver.ask())
                solver.tell(value, g)
            if shows:
                progress.show(nit, value, g if solver.mask is None else g[solver.mask], solver.rate)
    except KeyboardInterrupt:
        if of_minimize["interrupt"] == "raise":
            raise
        solver.stop(INTERRUPTED)
    finally:
        progress.close(solver.message)
    return _completed(solver.result(), objective)


def _completed(result: Any, objective: Objective) -> Any:
    """A result with the counts of calls, and with the value that nobody has looked at on the way."""
    if objective.is_value_missing and result.status != INTERRUPTED:
        result.fun = objective.value(result.x.copy())
        if not math.isfinite(result.fun) and result.status != NOT_FINITE:
            result.status, result.success, result.message = NOT_FINITE, False, MESSAGES[NOT_FINITE]
    result.nfev, result.njev = objective.nfev, objective.njev
    return result


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
    >>> bowl = lambda x: ((x - 3) ** 2).sum()
    >>> scipy.optimize.minimize(bowl, [0.0, 1.0], method=adam).x.round(4)
    array([3., 3.])
    """
    return _ScipyMethod(class_of(method), arguments)


@dataclass(frozen=True)
class _ScipyMethod:
    """What SciPy calls."""

    cls: type[Optimizer]
    arguments: Mapping[str, Any]

    def __call__(self, fun: Any, x0: Any, args: tuple[Any, ...] = (), **given: Any) -> Any:
        """Minimize."""
        arguments = self.arguments
        if given.get("tol") is not None:  # of the call, before the tolerance of the method
            arguments = {key: value for key, value in arguments.items() if key != "gtol"}
        given = {**arguments, **given}
        if given.pop("constraints", ()):
            raise ValueError("constraints must be empty: only bounds can be kept")
        known = {key: given.pop(key, None) for key in ("jac", "bounds", "tol", "callback")}
        options = {key: value for key, value in given.items() if key not in ("hess", "hessp")}
        return minimize(fun, x0, args, self.cls, **known, options=options)

    def lower(self) -> str:
        """How SciPy calls all methods that are none of its own: `scipy.optimize.shgo` takes each for the name of one."""
        return "_custom"
