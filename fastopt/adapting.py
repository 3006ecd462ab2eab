"""Steps that depend on more than each element's own numbers: sums over elements, running scalars, arrays beside the state.

What comes out is the coefficients of each parameter, and the scalars to keep once the step has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastopt.groups import Group
from fastopt.measuring import measuring, placed, summed
from fastopt.parameters import Parameter

if TYPE_CHECKING:
    from fastopt.optimizer import Optimizer

# By parameter, what its measure summed up: shape (products, tensors).
Sums = Mapping[Parameter, NDArray[Any]]
# Scalars of a group or parameter, and what takes their place.
Progress = list[tuple[MutableMapping[str, Any], Mapping[str, Any]]]

# Cautious steps are lengthened at most a thousandfold (Liang et al., 2024, in their code).
LEAST_AGREEMENT = 1e-3


# Gradients may be infinite or NaN, and so may be what follows from them; that is no reason for a warning.
@np.errstate(all="ignore")
def measured(optimizer: Optimizer, groups: Sequence[Group], vectors: Mapping[Parameter, NDArray[Any]]) -> Sums:
    """Run the measures of all groups that have one."""
    return {
        p: summed(p, group.measure, p.measured, vectors[p], group.current["lr"], _measure_coefficients(optimizer, group, p))
        for group in groups
        if group.measure is not None
        for p in group.parameters
    }


def warm(optimizer: Optimizer, group: Group, gradients: Mapping[Parameter, np.dtype[Any]]) -> None:
    """Compile what the next step of a group will run, or load it from the cache."""
    sums = {}
    if group.measure is not None:
        for p in group.parameters:
            coefficients = _measure_coefficients(optimizer, group, p)
            kernel, _, products = measuring(p, group.measure, p.measured, gradients[p], coefficients)
            kernel.compile()
            sums[p] = p.blocks.totals(products + 1.0)
    each, _ = adapted(optimizer, group, sums)
    for p in group.parameters:
        group.kernel(p, gradients[p], each[p]).compile()


def adapted(optimizer: Optimizer, group: Group, sums: Sums) -> tuple[dict[Parameter, tuple[Any, ...]], Progress]:
    """The coefficients of each parameter of a group, and the scalars to keep."""
    if optimizer.per_tensor or group.hyper["cautious"]:
        with np.errstate(all="ignore"):  # it takes as long as a small step
            return _adapted(optimizer, group, sums)
    return _adapted(optimizer, group, sums)


def _adapted(optimizer: Optimizer, group: Group, sums: Sums) -> tuple[dict[Parameter, tuple[Any, ...]], Progress]:
    hyper, t = group.current, group.step_count + 1
    coefficients: dict[Parameter, tuple[Any, ...]] = {}
    progress: Progress = []
    if not optimizer.per_tensor:
        totals = () if group.hyper["cautious"] else _over_all(sums)
        scalars = optimizer.advance({**hyper, **group.scalars}, t, totals)
        own = optimizer.coefficients({**hyper, **scalars}, t)
        progress.append((group.scalars, scalars))
    for p in group.parameters:
        if optimizer.per_tensor:
            scalars = optimizer.advance({**hyper, **p.scalars}, t, tuple(sums.get(p, ())))
            own = optimizer.coefficients({**hyper, **scalars}, t)
            progress.append((p.scalars, scalars))
        named = {"caution": _caution(p, sums[p][0])} if group.hyper["cautious"] else {}
        whole = own + group.option_coefficients + group.scale_coefficient()
        group.require_numbers(whole)
        coefficients[p] = placed(whole, p, named)
    return coefficients, progress


def _measure_coefficients(optimizer: Optimizer, group: Group, p: Parameter) -> tuple[Any, ...]:
    t = group.step_count + 1
    before = {**group.current, **(p.scalars if optimizer.per_tensor else group.scalars)}
    if group.hyper["cautious"]:  # the measure is the rule itself
        own = optimizer.coefficients({**before, **optimizer.advance(before, t, ())}, t)
    else:
        own = optimizer.measure_coefficients(before, t)
    return placed(group.measure_coefficients(own) + group.scale_coefficient(), p, {})


def _over_all(sums: Sums) -> tuple[float, ...]:
    """Sums over all parameters, always in the same order."""
    return tuple(map(float, np.sum([totals.sum(axis=1) for totals in sums.values()], axis=0))) if sums else ()


def _caution(p: Parameter, agreeing: NDArray[Any]) -> NDArray[Any]:
    """How much further cautious steps go: by the share of the elements that they leave out."""
    sizes = np.maximum(np.diff(p.blocks.tensors), 1)
    factors: NDArray[Any] = 1.0 / np.maximum(agreeing / sizes, LEAST_AGREEMENT)
    return factors
