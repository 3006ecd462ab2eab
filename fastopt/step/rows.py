"""Steps that touch only some rows of tables, and of their state."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import Parameter
from fastopt.arrays.rows import Touched, chosen_rows, is_sparse, summed, touched_rows
from fastopt.arrays.tree import leaves, matching_leaves
from fastopt.description.hyperparameters import boolean
from fastopt.description.recipe import Description
from fastopt.engine import steps
from fastopt.step.groups import Group
from fastopt.step.missed_steps import Missed, stands_still
from fastopt.step.model import Model
from fastopt.step.passes import Pass
from fastopt.step.plan import Work
from fastopt.step.plans import RESTART
from fastopt.step.row_plan import RowPlan
from fastopt.step.stepping import Stepping

Dense = dict[Parameter, NDArray[Any]]

# Of so many choices of tables the plans are kept.
MOST_PLANS = 64

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
        self._missed = stepping.missed
        self._plan_of: dict[Parameter, RowPlan] = {}  # with which these rows can catch up
        self._still: dict[Parameter, bool] = {}

    def take(self, description: Description, rows: Any, grads: Any, param: Any, lazy: bool, scale: float) -> None:
        """Take a step; see `Optimizer.step_rows`."""
        if self._stepping.accumulated[0]:
            raise ValueError("gradients were accumulated: take them by step() first, or discard()")
        touched, dense = self._checked(rows, grads, param)
        ended = RESTART
        while ended == RESTART:
            ended = self._stepping.restarted(self._run(description, touched, dense, lazy, scale))

    def _run(
        self, description: Description, touched: Mapping[Parameter, Touched], dense: Dense, lazy: bool, scale: float
    ) -> int:
        """Take a step, unless a signal handler takes one meanwhile; how it ended."""
        count = int(self._stepping.counter[0])
        works, scale = self._stepping.ready(description, scale)
        plan, groups, limits = self._prepared(description, works, touched, dense)
        self._stepping.write_limits(limits, groups)
        recorded = set() if lazy else self._recorded(plan, touched)
        for p in self._missed.keys() & dense.keys():
            self._catch_up(p)
        token = plan.begin()
        plan.write_gradients(dense, token)
        phases = steps.BEGIN | steps.UPDATE | (steps.SQUARES if self._stepping.needs_norms() else 0)
        run = functools.partial(plan.run_rows, touched, self._missed, recorded, token, scale, count)
        ended = run(phases)
        if ended in (steps.NOT_FINITE, steps.OUT_OF_RANGE):
            unique = {p: summed(given) for p, given in touched.items()}
            vectors = {p: total.reshape((-1, 2) if p.is_paired else -1) for p, (_, total) in unique.items()}
            which = {p: own for p, (own, _) in unique.items()}
            if self._stepping.is_to_skip(plan, groups, dense | vectors, scale, ended, which):
                self._stepping.count_skipped()
                return steps.DONE
            ended = run(steps.BEGIN | steps.UPDATE)
        return ended

    def catch_up(self, rows: Any, param: Any) -> None:
        """Let rows take the steps that they have missed; see `Optimizer.catch_up`."""
        if rows is None:
            chosen = dict.fromkeys(self._parameters(param)[1])
        else:
            structure, parameters = self._parameters(param)
            given = zip(parameters, matching_leaves(structure, rows, "rows"), strict=True)
            chosen = {p: chosen_rows(p, name, own) for p, (name, own) in given if own is not None}
        for p in self._missed.keys() & chosen.keys():
            self._catch_up(p, chosen[p])

    def _catch_up(self, p: Parameter, rows: NDArray[Any] | None = None) -> None:
        if (missed := self._missed[p]).taken[0]:
            self._plan_of[p].catch_up(p, missed, rows)

    def _recorded(self, plan: RowPlan, touched: Mapping[Parameter, Touched]) -> set[Parameter]:
        """The tables whose other rows miss the next step. Where they would stand still, there is nothing to miss."""
        recorded = set()
        for p in touched:
            of_pass = next(work.update for work in plan.works if p in work.update.parameters)
            if p not in self._missed and not self._is_still(of_pass, p):
                if self._model.file is not None:
                    raise ValueError("lazy=False is not for optimizers with state_path, whose file has no missed steps")
                if "lr" in of_pass.names:
                    raise ValueError("lazy=False needs a learning rate that is a number, or follows a schedule")
                self._missed[p] = Missed(p, of_pass)
            if p in self._missed:
                recorded.add(p)
                if self._missed[p].is_full:
                    self._catch_up(p)
                self._plan_of[p] = plan
        return recorded

    def _is_still(self, of_pass: Pass, p: Parameter) -> bool:
        if p not in self._still:
            self._still[p] = stands_still(of_pass, p)
        return self._still[p]

    def _checked(self, rows: Any, grads: Any, param: Any) -> tuple[dict[Parameter, Touched], Dense]:
        """The rows and their gradients, and whole gradients, as vectors."""
        frozen = {p for group in self._model.groups if group.hyper["frozen"] for p in group.parameters}
        given = [each for each in self._given(rows, grads, param) if each[0] not in frozen]
        touched: dict[Parameter, Touched] = {}
        dense: Dense = {}
        for p, (name, own), (grads_name, g) in given:
            if own is not None or is_sparse(g):
                touched[p] = touched_rows(p, name, own, grads_name, g)
            elif g is not None:
                dense[p] = p.gradient(grads_name, g)
        if given and not touched and not dense:
            raise TypeError("grads is missing: there is neither a gradient of rows nor of a whole array")
        return touched, dense

    def _given(self, rows: Any, grads: Any, param: Any) -> Iterator[tuple[Parameter, tuple[str, Any], tuple[str, Any]]]:
        """Each parameter with its rows and its gradient, and what messages call these."""
        structure, parameters = self._parameters(param)
        named_rows = [("rows", None)] * len(parameters) if rows is None else matching_leaves(structure, rows, "rows")
        return zip(parameters, named_rows, matching_leaves(structure, grads, "grads"), strict=True)

    def _parameters(self, param: Any) -> tuple[Any, list[Parameter]]:
        """How the chosen parameters are nested, and which they are."""
        if param is None:
            return self._model.structure, self._model.parameters
        structure = list(param) if isinstance(param, (list, tuple)) else param
        of_leaf = {id(p.leaf): p for p in self._model.parameters}
        found = [(name, of_leaf.get(id(leaf))) for name, leaf in leaves(structure, "param")]
        if unknown := [name for name, p in found if p is None]:
            raise ValueError(f"{unknown[0]} must be one of the arrays that the optimizer was constructed with")
        parameters = [p for _, p in found if p is not None]
        if len(set(parameters)) < len(parameters):
            raise ValueError("param has the same array twice")
        return structure, parameters

    def _prepared(
        self, description: Description, works: list[tuple[Group, Work]], touched: Mapping[Parameter, Touched], dense: Dense
    ) -> Prepared:
        """What a step with these goes through."""
        if works is not self._works:
            for p in list(self._missed):  # by the passes and numbers of before
                self._catch_up(p)
            for of_before in (self._plans, self._missed, self._plan_of, self._still):
                of_before.clear()
            self._works = works
        dtypes = {p: given.gradients.dtype for p, given in touched.items()} | {p: g.dtype for p, g in dense.items()}
        key = (len(touched), *dtypes.items())
        if key not in self._plans:
            if len(self._plans) == MOST_PLANS:
                del self._plans[next(iter(self._plans))]
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


def step_rows(self: Any, rows: Any, grads: Any, param: Any = None, *, lazy: bool = True, scale: float = 1.0) -> None:
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
    lazy : bool, default True
        Whether rows that are not touched stand still. If not, the step is one with a gradient of zeros for them, which each
        takes when it is next touched, or by `catch_up`: the bits are those of `step`.
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
        While the parameters are swapped with their averages, or another thread takes a step.

    Notes
    -----
    Each touched row is stepped as `step` would step it alone. With `lazy`, no momentum, no decay, no averages reach the others.
    The step is counted once for each group with a parameter in it, and what corrects a start at zero goes by that count. A step
    without rows is counted, and touches nothing. Norms are those of the touched rows.

    Without `lazy`, call `catch_up` with the rows that the next batch will read, before it does. Until all rows have caught up,
    what takes the whole table (`step`, state dicts, averages in the place of parameters) is refused. A row catches up by as
    many steps of its own as it has missed, with the numbers that these had; after 1,024 steps, all rows do. Where a gradient of
    zero moves nothing (gradient descent, AdaGrad, both without decay), both ways are one, with nothing to catch up with.

    After an error, parameters, state and step counter are as they were.
    """
    with self._turn:
        if self._barred:
            raise RuntimeError(self._barred)
        self._rows.take(self, rows, grads, param, boolean("lazy", lazy), scale)


def catch_up(self: Any, rows: Any = None, param: Any = None) -> None:
    """Let rows take the steps that they have missed since they were last touched, see `step_rows` with ``lazy=False``.

    Parameters
    ----------
    rows : ndarray of int32 or int64, shape (n,); sparse matrix; (indptr, indices, data); or None; optional
        Which rows, as `step_rows` takes them: those that are about to be read. By default all, and then `step`, state dicts
        and whatever else takes the whole table may follow.
    param : ndarray, or list of ndarray, optional
        Of which parameters, as `step_rows` takes them; by default all, and `rows` are nested as these.

    Raises
    ------
    TypeError, ValueError
        As `step_rows` does for rows and parameters.
    RuntimeError
        While another thread takes a step.
    """
    with self._turn:
        self._rows.catch_up(rows, param)
