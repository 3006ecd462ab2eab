"""Gradients of several micro-batches, added up in buffers of their own until a step takes them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import aligned_zeros, require_array
from fastopt.arrays.parameters import Parameter
from fastopt.description.hyperparameters import integer
from fastopt.engine import steps
from fastopt.engine.compile import part
from fastopt.step.model import Model
from fastopt.step.passes import Pass
from fastopt.step.plan import Plan, Work
from fastopt.step.plans import RESTART, Dtypes, Plans, Vectors


@part
def taking(theta: Any, g: Any, lr: Any) -> Any:
    """Take the gradient."""
    return g


@part
def adding(theta: Any, g: Any, lr: Any) -> Any:
    """Add the gradient."""
    return theta + g


class Accumulation:
    """Sums of gradients in the dtypes of their parameters.

    Parameters
    ----------
    model : Model
        Whose gradients are added.
    count : ndarray of int64, shape (1,)
        How many were added since the last step, which sets it to zero.
    whole : mapping
        The options that belong to no group, as they are at present.
    """

    def __init__(self, model: Model, count: NDArray[Any], whole: Mapping[str, Any]) -> None:
        self._model, self._counter, self._whole = model, count, whole
        self.waiting: Any = memoryview(count)  # type: ignore[arg-type, unused-ignore]  # which is read in a third of the time
        self._plans = Plans(model)
        self._buffers: dict[Parameter, NDArray[Any]] = {}
        self._begun: set[Parameter] = set()
        self._built_for: tuple[set[Parameter], set[Parameter], int | None] | None = None
        self._attempt: tuple[int, set[Parameter]] = 0, set()

    @property
    def count(self) -> int:
        """How many gradients were added since the last step."""
        return int(self.waiting[0])

    def add(self, grads: Any) -> None:
        """Add the gradient of each parameter to its sum."""
        while self._add(grads, self.count) == RESTART:  # another thread, or a signal handler, has added one meanwhile
            pass

    def _add(self, grads: Any, count: int) -> int:
        begun, active = self._known_sums(), {p for group in self._model.active for p in group.parameters}
        wanted = begun, active, self._whole["threads"]
        if self._built_for != wanted:
            self._begun, self._built_for = begun, None  # until there are plans for it
            for p in active - self._buffers.keys():
                self._buffers.setdefault(p, aligned_zeros(p.theta.size, p.dtype))
            self._plans.renew(functools.partial(_built, self._model, self._works(active), self._counter, wanted[2]))
            self._built_for = wanted
        self._attempt = count, active

        def run(plan: Plan, found: Any, token: int) -> int:
            ended = plan.call(steps.UPDATE, token, 1.0, found, count)
            return RESTART if ended == steps.INTERRUPTED else ended

        return self._plans.run(grads, "grads", run)

    def taken(self, grads: Any) -> Vectors:
        """What a step without gradients takes; with some, that is an error.

        Raises
        ------
        TypeError, ValueError
            If there are gradients, or nothing was added, or not for all parameters.
        """
        if grads is not None:
            raise ValueError(
                f"{self.count} gradients were accumulated: take them by step() first, accumulate these too, or discard()"
            )
        if not self._model.active:
            return Vectors()
        if not self.count:
            raise TypeError("grads is missing, and nothing was accumulated")
        return Vectors(self.sums())

    def sums(self) -> dict[Parameter, NDArray[Any]]:
        """What was added up for the parameters that are stepped.

        Raises
        ------
        ValueError
            If nothing was added for one of them.
        """
        begun, parameters = self._known_sums(), [p for group in self._model.active for p in group.parameters]
        if missing := [p for p in parameters if p not in begun]:
            raise ValueError(f"nothing was accumulated for {missing[0].name}")
        return {p: p.formed(self._buffers[p]) for p in parameters}

    def saved(self) -> dict[str, Any]:
        """How many gradients wait, and their sums by the names of parameters."""
        begun = self._known_sums()
        return {"count": self.count, "sums": {p.name: self._buffers[p] for p in self._model.parameters if p in begun}}

    def checked(self, saved: Any) -> tuple[int, dict[Parameter, NDArray[Any]]]:
        """What `go_on` takes.

        Raises
        ------
        TypeError, ValueError
            If it is nothing that `saved` gives for these parameters.
        """
        if not isinstance(saved, Mapping) or not isinstance(sums := saved.get("sums"), Mapping):
            raise TypeError(f"accumulated gradients must be a mapping with 'count' and 'sums', got {saved!r:.100}")
        count = integer("the count of accumulated gradients", saved.get("count"))
        parameters, found = {p.name: p for p in self._model.parameters}, {}
        for name, given in sums.items():
            if name not in parameters or not count:
                raise ValueError(f"accumulated gradients must belong to the parameters, got some of {name!r}")
            p, array = parameters[name], require_array(f"the accumulated gradient of {name}", given, [parameters[name].dtype])
            if array.shape != p.theta.shape:
                raise ValueError(f"the accumulated gradient of {name} must have {p.theta.size} elements")
            found[p] = array
        return count, found

    def go_on(self, count: int, sums: Mapping[Parameter, NDArray[Any]]) -> None:
        """Be as after so many gradients with these sums, which are copied."""
        for p, array in sums.items():
            self._buffers.setdefault(p, aligned_zeros(p.theta.size, p.dtype))[...] = array
        self._counter[0] = count
        self._begun, self._attempt, self._built_for = set(sums), (count, set()), None

    def _known_sums(self) -> set[Parameter]:
        """Those with a sum. What `add` did is told by the counter, for it may have been interrupted before or after."""
        if not self.count:
            return set()
        before, parameters = self._attempt
        if before == 0:
            return parameters
        return self._begun | parameters if before < self.count else self._begun

    def _works(self, active: set[Parameter]) -> list[Work]:
        # The first one takes the place of what is there: so nothing has to be set to zero before.
        of_rules = {adding: active & self._begun, taking: active - self._begun}
        buffers = self._buffers
        return [
            Work(Pass(rule, list(parameters), lambda p: [p.formed(buffers[p])], 0.0, ()), np.zeros(1, np.int64))
            for rule, parameters in of_rules.items()
            if parameters
        ]


def _built(model: Model, works: list[Work], counter: NDArray[Any], threads: int | None, dtypes: Dtypes) -> Plan:
    return Plan(model.parameters, works, model.memory, dtypes, counter, model.is_lone, threads)
