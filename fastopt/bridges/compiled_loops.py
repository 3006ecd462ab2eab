"""An optimizer for use inside of compiled loops of one's own: its rule, its numbers for each step, its serial kernel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastopt.arrays.layout import FLOATS, one_of, require_array
from fastopt.description.hyperparameters import integer
from fastopt.engine.compile import Rule, part
from fastopt.engine.interpreted import fixed_tuple
from fastopt.engine.loop import span
from fastopt.engine.storage import load
from fastopt.optimizer import Optimizer
from fastopt.step.numbers import require_numbers


class Embedded:
    """An optimizer as functions for compiled code. Made by `embed`.

    Attributes
    ----------
    rule : callable
        ``rule(theta, g, lr, *states, *coefficients)`` gives the new theta and states of one element: the optimizer's rule with
        what its options do around it. For compiled code and NumPy arrays.
    state_names : tuple of str
        The states, in the order in which the rule takes them.
    values : callable
        ``values(row)`` gives the numbers of a `row`, or of one of a `table`, as a tuple in the dtype of the parameters: the
        rate and the coefficients. For compiled code.
    step : callable
        ``step(theta, g, states, row, begin, end)`` steps the elements from ``begin`` up to ``end`` of vectors in the calling
        thread, where ``states`` is a tuple of vectors and ``row`` a row of `table`. For compiled code; it checks nothing.
    """

    def __init__(self, make: Callable[[NDArray[Any]], Optimizer], dtype: np.dtype[Any]) -> None:
        self._make, self._dtype = make, dtype
        self._optimizer = optimizer = make(np.zeros(1, dtype))
        (group,) = optimizer.param_groups
        _require_elementwise(optimizer)
        self.rule: Rule = group.rule
        self.state_names: tuple[str, ...] = group.state_names
        row = next(self._rows(1))
        require_numbers(row[1:])
        self._numbers = len(row)
        self.values, self.step = _for_compiled_code(group.rule, dtype, self._numbers)

    def states(self, theta: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Make the states of a parameter as they are before the first step.

        Parameters
        ----------
        theta : ndarray
            The parameter, of the dtype that `embed` was told; only read.

        Returns
        -------
        tuple of ndarray
            Arrays in its shape, in the order of `state_names`.

        Raises
        ------
        TypeError
            If it is of another dtype.
        """
        theta = require_array("theta", theta, [self._dtype])
        state = self._make(theta.copy("K")).state
        return tuple(np.array(state[name]) for name in self.state_names)

    def table(self, steps: int, first: int = 1) -> NDArray[Any]:
        """Compute the numbers that the rule takes in each of some steps.

        Parameters
        ----------
        steps : int
            How many steps.
        first : int, default 1
            The first of them. What an optimizer computes from step to step, such as NAdam's product of momenta, is computed
            from step 1 on, whichever is the first.

        Returns
        -------
        ndarray of float64, shape (steps, numbers)
            Row ``t - first`` has those of step ``t``: the learning rate, and the coefficients.

        Raises
        ------
        TypeError, ValueError
            If `steps` is no integer of at least 0, or `first` none of at least 1.
        """
        steps, first = integer("steps", steps), integer("first", first, 1)
        return np.array(list(itertools.islice(self._rows(first), steps)), np.float64).reshape(steps, self._numbers)

    def row(self, t: int) -> NDArray[Any]:
        """Compute the numbers that the rule takes in one step.

        Parameters
        ----------
        t : int
            The step, from 1.

        Returns
        -------
        ndarray of float64, shape (numbers,)
            As `table` has them.

        Raises
        ------
        TypeError, ValueError
            If it is no integer of at least 1.
        """
        return np.array(next(self._rows(integer("t", t, 1))), np.float64)

    def _rows(self, first: int) -> Iterator[tuple[Any, ...]]:
        """The numbers of one step after the other."""
        optimizer = self._optimizer
        (group,) = optimizer.param_groups
        scalars = dict(optimizer.scalars)
        for t in itertools.count(1 if scalars else first):
            if group.schedules:
                optimizer._stepping.counter[0] = t - 1
                optimizer._stepping.prepare(optimizer)
            coefficients = optimizer.coefficients({**group.current, **scalars}, t)
            if scalars:
                scalars = dict(zip(scalars, optimizer.decided({**group.current, **scalars}, t), strict=False))
            if t < first:
                continue
            row = (group.current["lr"], *coefficients, *group.option_coefficients)
            if not (scalars or group.schedules) and optimizer.is_steady(group.hyper, t):
                yield from itertools.repeat(row)
            yield row


def embed(optimizer: type[Optimizer], dtype: DTypeLike = np.float64, **arguments: Any) -> Embedded:
    """Make the functions of an optimizer for compiled code.

    Parameters
    ----------
    optimizer : type
        A class of optimizers.
    dtype : float32 or float64, default float64
        Of the parameters.
    **arguments
        What the class takes after the parameters.

    Returns
    -------
    Embedded

    Raises
    ------
    TypeError
        If it is no class of optimizers, or an argument is not allowed.
    ValueError
        If a step of it needs more than the element's own numbers: sums over elements, or arrays for options.

    Examples
    --------
    >>> import numba, numpy as np, fastopt
    >>> adam = fastopt.embed(fastopt.Adam, lr=0.1)
    >>> rule, values = adam.rule, adam.values
    >>> @numba.njit
    ... def minimize(w, m, v, table):
    ...     for row in table:
    ...         numbers = values(row)
    ...         for i in range(w.size):
    ...             g = 2.0 * (w[i] - 3.0)  # is never written to memory
    ...             w[i], m[i], v[i] = rule(w[i], g, numbers[0], m[i], v[i], *numbers[1:])
    >>> w = np.zeros(2)
    >>> minimize(w, *adam.states(w), adam.table(500))
    >>> w.round(3)
    array([3., 3.])
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)) or optimizer is Optimizer:
        raise TypeError(f"optimizer must be a class of optimizers, got {optimizer!r}")
    return Embedded(lambda theta: optimizer(theta, **arguments), one_of("dtype", dtype, FLOATS))


def _require_elementwise(optimizer: Optimizer) -> None:
    """Raise ValueError if a step depends on more than one element's numbers and those of the step."""
    (group,) = optimizer.param_groups
    (p,) = group.parameters
    name = type(optimizer).__name__
    if group.measure is not None or optimizer._stepping.needs_norms():
        raise ValueError(f"{name} can't be embedded: with these arguments it needs sums over all elements")
    if any(state.dtype != p.dtype for state in p.states.values()):
        raise ValueError(f"{name} can't be embedded with state_dtype: rules take states in the parameters' dtype")
    if p.of_rows:
        raise ValueError(f"{name} can't be embedded: with these arguments it needs means over rows")
    if group.hyper["frozen"]:
        raise ValueError(f"{name} can't be embedded: a frozen group takes no steps")
    if p.elements or p.copy is not None or group.zeroes:
        raise ValueError(f"{name} can't be embedded: with these arguments it needs arrays besides its states")


def _for_compiled_code(rule: Rule, dtype: np.dtype[Any], count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    number = dtype.type

    @part
    def values(row: Any) -> Any:
        return load(fixed_tuple(row, count), 0, number)

    @part
    def step(theta: Any, g: Any, states: Any, row: Any, begin: Any, end: Any) -> None:
        numbers = fixed_tuple(row, count)
        span(rule, number, (theta, *states), g, numbers[0], numbers[1:], begin, end)

    return values, step
