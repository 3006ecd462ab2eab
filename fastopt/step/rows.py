"""Steps that touch only some rows of tables, and of their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import Parameter
from fastopt.arrays.rows import Touched, is_sparse, require_there, summed, touched_rows
from fastopt.arrays.tree import leaves, matching_leaves
from fastopt.description.recipe import Description
from fastopt.engine import steps
from fastopt.step.groups import Group
from fastopt.step.model import Model
from fastopt.step.plan import Work
from fastopt.step.row_plan import RowPlan
from fastopt.step.stepping import Stepping

Dense = dict[Parameter, NDArray[Any]]


# A plan, its groups, and what their norms are limited to.
Prepared = tuple[RowPlan, list[Group], NDArray[Any]]


class RowSteps:
    """Takes steps of an optimizer that touch only some rows.

    Parameters
    ----------
    model : Model
        What is stepped.
    stepping : Stepping
        How whole steps are taken: these are counted with them, and take the same numbers.
    """

    def __init__(self, model: Model, stepping: Stepping) -> None:
        self._model, self._stepping = model, stepping
        self._works: Sequence[tuple[Group, Work]] = ()  # that plans were built for
        self._plans: dict[tuple[Any, ...], Prepared] = {}

    def take(self, description: Description, rows: Any, grads: Any, param: Any, scale: float) -> None:
        """Take a step; see `Optimizer.step_rows`."""
        if self._stepping.accumulated[0]:
            raise ValueError("gradients were accumulated: take them by step() first, or discard()")
        named, touched, dense = self._checked(rows, grads, param)
        ended = steps.INTERRUPTED
        while ended == steps.INTERRUPTED:  # by a signal handler that took a step
            count = int(self._stepping.counter[0])
            works, scale = self._stepping.ready(description, scale)
            plan, groups, limits = self._prepared(description, works, touched, dense)
            self._stepping.write_limits(limits, groups)
            token = plan.begin()
            plan.write_gradients(dense, token)
            phases = steps.BEGIN | steps.UPDATE | (steps.SQUARES if self._stepping.needs_norms() else 0)
            ended = plan.run_rows(touched, token, scale, count, phases)
            if ended == steps.UNKNOWN_GRADIENT:
                for p, name in named.items():
                    require_there(p, name, touched[p].rows)
            if ended in (steps.NOT_FINITE, steps.OUT_OF_RANGE):
                unique = {p: summed(given) for p, given in touched.items()}
                vectors = {p: total.reshape((-1, 2) if p.is_paired else -1) for p, (_, total) in unique.items()}
                which = {p: own for p, (own, _) in unique.items()}
                if self._stepping.is_to_skip(plan, groups, dense | vectors, scale, ended, which):
                    self._stepping.count_skipped()
                    return
                ended = plan.run_rows(touched, token, scale, count, steps.BEGIN | steps.UPDATE)
        if ended == steps.BUSY:
            raise RuntimeError("another thread takes a step of this optimizer; it takes one at a time")

    def _checked(self, rows: Any, grads: Any, param: Any) -> tuple[dict[Parameter, str], dict[Parameter, Touched], Dense]:
        """What rows are called, the rows and their gradients, and whole gradients, as vectors."""
        frozen = {p for group in self._model.groups if group.hyper["frozen"] for p in group.parameters}
        given = [each for each in self._given(rows, grads, param) if each[0] not in frozen]
        named: dict[Parameter, str] = {}
        touched: dict[Parameter, Touched] = {}
        dense: Dense = {}
        for p, (name, own), (grads_name, g) in given:
            if own is not None or is_sparse(g):
                named[p], touched[p] = name, touched_rows(p, name, own, grads_name, g)
            elif g is not None:
                dense[p] = p.gradient(grads_name, g)
        if given and not touched and not dense:
            raise TypeError("grads is missing: there is neither a gradient of rows nor of a whole array")
        return named, touched, dense

    def _given(self, rows: Any, grads: Any, param: Any) -> Iterator[tuple[Parameter, tuple[str, Any], tuple[str, Any]]]:
        """Each parameter with its rows and its gradient, and what messages call these."""
        structure, parameters = self._model.structure, self._model.parameters
        if param is not None:
            structure = list(param) if isinstance(param, (list, tuple)) else param
            of_leaf = {id(p.leaf): p for p in self._model.parameters}
            found = [(name, of_leaf.get(id(leaf))) for name, leaf in leaves(structure, "param")]
            if unknown := [name for name, p in found if p is None]:
                raise ValueError(f"{unknown[0]} must be one of the arrays that the optimizer was constructed with")
            parameters = [p for _, p in found if p is not None]
            if len(set(parameters)) < len(parameters):
                raise ValueError("param has the same array twice")
        named_rows = [("rows", None)] * len(parameters) if rows is None else matching_leaves(structure, rows, "rows")
        return zip(parameters, named_rows, matching_leaves(structure, grads, "grads"), strict=True)

    def _prepared(
        self, description: Description, works: list[tuple[Group, Work]], touched: Mapping[Parameter, Touched], dense: Dense
    ) -> Prepared:
        """What a step with these goes through."""
        if works is not self._works:
            self._works = works
            self._plans.clear()
        dtypes = {p: given.gradients.dtype for p, given in touched.items()} | {p: g.dtype for p, g in dense.items()}
        key = (len(touched), *dtypes.items())
        if key not in self._plans:
            used = [(group, work) for group, work in works if not dtypes.keys().isdisjoint(group.parameters)]
            for group, _ in used:
                _require_rows(description, group)
            limits = np.zeros(len(used) + 1)
            every = {p: p.theta.dtype for p in self._model.parameters} | dtypes
            options = {**self._stepping.options_of_plans(), "limits": limits}
            plan = RowPlan(self._model, [work for _, work in used], every, list(touched), list(dense), options)
            self._plans[key] = plan, [group for group, _ in used], limits
        return self._plans[key]


def _require_rows(description: Description, group: Group) -> None:
    """Raise ValueError if steps of some rows mean nothing for a group."""
    name = type(description).__name__
    if group.hyper["cautious"]:
        raise ValueError("cautious=True looks at all elements of a tensor, so there are no steps of some rows")
    if group.measure is not None:
        raise ValueError(f"{name} needs sums over all elements in each step, so it has no steps of some rows")
    if description.elements:
        raise ValueError(f"{name} needs a new number for every element in each step, so it has no steps of some rows")
    if group.zeroes:
        raise ValueError("zero_grad=True is not for steps of some rows, whose gradients are only read")
    if any(p.has_codes for p in group.parameters):
        raise ValueError("state_dtype='int8' is not for steps of some rows, which share blocks with others")


def step_rows(self: Any, rows: Any, grads: Any, param: Any = None, *, scale: float = 1.0) -> None:
    """Update only some rows of parameters, and of their state, in place: those of a table that a batch has touched.

    Parameters
    ----------
    rows : ndarray of int32 or int64, shape (n,); sparse matrix, shape (batch, rows); (indptr, indices, data); or None
        Which rows, in any order. If a row comes more than once, its gradients are added up first, in the order in which they
        come. With a sparse matrix of SciPy's, or its three arrays in CSR form, the gradient is ``matrix.T @ grads``: that of
        ``matrix @ table``. Where it is None, the gradient is one of the whole array.
    grads : ndarray, shape (n, ...) or (batch, ...); or sparse matrix
        The gradient of each row in `rows`, or of each item of the batch: float32 or float64, complex for complex parameters.
        Without rows, a gradient as `step` takes it, or a sparse matrix in the shape of the parameter, whose rows are touched
        where something is stored. Only read.
    param : ndarray, or list of ndarray, optional
        Which parameters are stepped; the others stand still. With a list, `rows` and `grads` are lists, too. By default both
        are nested as all parameters are, and where both are None, the parameter stands still.
    scale : float, default 1
        Multiplies the gradients.

    Raises
    ------
    TypeError
        If a container or an array is of another kind, or of another dtype.
    ValueError
        If there is no such row or parameter, a shape or a length differs, the rows of a parameter don't lie side by side in
        memory, or the optimizer or an option needs all elements in each step (LAMB, say, or `cautious`).
    RuntimeError
        While the parameters are swapped with their averages.

    Notes
    -----
    Each touched row is stepped as `step` would step it alone; what is not touched stands still, with its state: no momentum,
    no decay, no averages reach it. The step is counted once for each group with a parameter in it, and what corrects a start
    at zero goes by that count. A step without rows is counted, and moves nothing. Norms are those of the touched rows.

    After an error, parameters, state and step counter are as they were.
    """
    self._require_unswapped()
    self._rows.take(self, rows, grads, param, scale)
