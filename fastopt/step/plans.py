"""Plans for the dtypes in which gradients come, and what happens to gradients that are not as they were the last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.parameters import Copied, Parameter
from fastopt.engine import steps
from fastopt.step.model import Model
from fastopt.step.plan import Plan
from fastopt.step.zeroing import require_zeroable

Dtypes = Mapping[Parameter, np.dtype[Any]]

# Builds a plan.
Build = Callable[[Dtypes], Plan]

# Runs a plan: with an object that has gradients, or with those that are known if it is None; and a number for this step.
Run = Callable[[Plan, Any, int], int]

# How a run ends that begins anew with what is prepared for it.
RESTART = -1


class Vectors(dict[Parameter, NDArray[Any]]):
    """Gradients of the optimizer's own, as vectors that spans take."""


class Plans:
    """The plan for each combination of dtypes, built when it is needed.

    Parameters
    ----------
    model : Model
        Whose parameters have the gradients.
    build : callable, optional
        ``build(dtypes)`` gives a plan; see `renew`.

    Attributes
    ----------
    current : Plan or None
        The one that was last used.
    """

    def __init__(self, model: Model, build: Build | None = None) -> None:
        self._model, self._build = model, build
        self._plans: dict[tuple[np.dtype[Any], ...], Plan] = {}
        self._dtypes: dict[Parameter, np.dtype[Any]] = {}
        self.current: Plan | None = None

    def renew(self, build: Build) -> None:
        """Build plans anew from now on. What builds them must not hold what holds these, or neither would be freed at once."""
        self._build = build
        self._plans.clear()
        self.current = None

    def prepared(self) -> Plan:
        """The plan for gradients of the dtypes that came last."""
        return self.of({}) if self.current is None else self.current

    def run(self, grads: Any, name: str, run: Run, is_unknown: bool = False) -> int:
        """Run the plan with gradients as users hand them over.

        Parameters
        ----------
        grads : tree
        name : str
            What messages call them.
        run : callable
            Runs the plan.
        is_unknown : bool, default False
            Whether it was tried already, and some of them are not as they were.

        Raises
        ------
        TypeError, ValueError
            If a gradient is not allowed; nothing is changed then.
        RuntimeError
            If another thread takes a step.
        """
        while True:
            plan, ended = self.prepared(), steps.UNKNOWN_GRADIENT
            apart: list[NDArray[Any]] = []
            if not is_unknown:
                ended = run(plan, plan.held(self._model.collected(grads)), plan.begin())
            if ended == steps.UNKNOWN_GRADIENT:
                # Held until the step is over: they may be nobody else's, copies or what a container makes when it is asked.
                vectors = {p: (path, p.gradient(path, g), g) for p, path, g in self._model.named(grads, name)}
                plan, apart, token = self._known(vectors)
                ended = run(plan, None, token)
            if ended == steps.DONE:  # else they are still to be taken
                for array in apart:
                    array[...] = 0
            if ended != steps.INTERRUPTED:  # by a signal handler that took a step
                return ended

    def run_vectors(self, vectors: Mapping[Parameter, NDArray[Any]], run: Run) -> int:
        """The same with vectors as spans take them, which are not looked at."""
        while True:
            plan = self.of({p: vector.dtype for p, vector in vectors.items()})
            token = plan.begin()
            plan.write_gradients(vectors, token)
            ended = run(plan, None, token)
            if ended != steps.INTERRUPTED:
                return ended

    def _known(self, named: Mapping[Parameter, tuple[str, NDArray[Any], Any]]) -> tuple[Plan, list[NDArray[Any]], int]:
        """The plan for these gradients, which knows where they lie; those that it must set to zero, but can't; and a token."""
        vectors = {p: vector for p, (_, vector, _) in named.items()}
        plan = self.of({p: vector.dtype for p, vector in vectors.items()})
        given = {p: (path, p.unwrap(path, g)) for p, (path, _, g) in named.items()}
        zeroed = [p for work in plan.works if work.update.zeroes for p in work.update.parameters]
        apart = require_zeroable(zeroed, vectors, given) if zeroed else []
        token = plan.begin()
        plan.write_gradients(vectors, token)
        if not any(isinstance(vector, Copied) for vector in vectors.values()):
            plan.accept(vectors)
        return plan, apart, token

    def of(self, dtypes: Dtypes) -> Plan:
        """The plan for gradients of these dtypes; those that are not given are as they were the last time."""
        every = {p: self._dtypes.get(p, p.theta.dtype) for p in self._model.parameters} | dict(dtypes)
        key = tuple(every.values())
        plan = self._plans.get(key)
        if plan is None:
            assert self._build is not None
            plan = self._plans[key] = self._build(every)
        self._dtypes, self.current = every, plan
        return plan
