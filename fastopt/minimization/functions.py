"""`minimize`, and the method for SciPy's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fastopt.minimization.arguments import Method, class_of, needs_value, sides_of, split, start_of
from fastopt.minimization.objective import Objective
from fastopt.minimization.run import Run
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
        ``jac(x, *args)`` gives the gradient; True if `fun` gives it, too; None for finite differences, which never leave the
        bounds.
    bounds : sequence or array of pairs, or `scipy.optimize.Bounds`, optional
        Lower and upper bounds of each variable, None for none. No step leaves them. What is no number of the dtype is rounded
        to the next one between the bounds, or to the nearest if none lies between.
    tol : float, optional
        The same as the option ``gtol``.
    callback : callable, optional
        Called before each step with the keyword ``intermediate_result``, if it takes an argument of this name, an
        `OptimizeResult` with ``x``, ``fun``, ``jac`` and ``nit``; else with ``x``, a copy each time. To stop, it raises
        StopIteration or returns True; as in SciPy, that is no success, and the status 99.
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
        later call can take. It is a success unless there were tolerances and none was reached, something is not finite, the
        callback stopped it, or patience ended above where it began. Where the point or its gradient is not finite it stops at
        once (but for what the option ``nonfinite`` of the optimizer asks for): ``x`` is then the last point before, ``nit`` the
        steps up to it, and ``message`` says which element it was; ``state`` is that of one step more.

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
    own, arguments = split(options, tol)
    x = start_of(x0)
    sides = sides_of(bounds, x)
    optimizer = class_of(method)(x, **arguments, **dict[str, Any]({} if sides is None else {"bounds": sides}))
    if own["state"] is not None:
        _resume(optimizer, own["state"])
    objective = Objective(fun, jac, args, x, sides, needs_value=needs_value(own, callback))
    run = Run(objective, optimizer, x, own, callback)
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
    return functools.partial(_minimize_for_scipy, class_of(method), arguments)


def _minimize_for_scipy(
    cls: type[Optimizer], arguments: Mapping[str, Any], fun: Any, x0: Any, args: tuple[Any, ...] = (), **given: Any
) -> Any:
    """What SciPy calls."""
    given = {**arguments, **given}
    if given.pop("constraints", ()):
        raise ValueError("constraints must be empty: only bounds can be kept")
    known = {key: given.pop(key, None) for key in ("jac", "bounds", "tol", "callback")}
    return minimize(fun, x0, args, cls, **known, options={k: v for k, v in given.items() if k not in ("hess", "hessp")})


def _resume(optimizer: Optimizer, state: Any) -> None:
    """Take averages and steps from a state, with the hyper-parameters of the present call."""
    if isinstance(state, Mapping):
        own = optimizer.state_dict()
        state = {**state, "groups": own["groups"], "whole": own["whole"]} if {"groups", "whole"} <= state.keys() else state
    optimizer.load_state_dict(state)
