"""Steps that depend on more than each element's own numbers: sums over elements, running scalars, arrays beside the state.

What comes out is the coefficients of each parameter, and the scalars to keep once the step has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import kind_of
from fastopt.engine.kernel import Kernel
from fastopt.groups import Group
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
def measured(
    optimizer: Optimizer, groups: Sequence[Group], vectors: Mapping[Parameter, NDArray[Any]], scale: float = 1.0
) -> Sums:
    """Run the measures of all groups that have one."""
    sums = {}
    for group in groups:
        if group.measure is not None:
            for p in group.parameters:
                g, lr = vectors[p], p.elements.get("lr", group.current["lr"])
                kernel, coefficients, products = _measuring(optimizer, group, p, g.dtype, scale)
                run, span = kernel.route or kernel.prepare()
                run(p.arrays, g, lr, coefficients, *span)
                sums[p] = p.blocks.totals(products)
    return sums


def warm(optimizer: Optimizer, group: Group, gradients: Mapping[Parameter, np.dtype[Any]]) -> None:
    """Compile what the next step of a group will run, or load it from the cache."""
    sums = {}
    if group.measure is not None:
        for p in group.parameters:
            kernel, _, products = _measuring(optimizer, group, p, gradients[p])
            kernel.prepare()
            sums[p] = p.blocks.totals(products + 1.0)
    coefficients, _ = adapted(optimizer, group, sums)
    for p in group.parameters:
        group.kernel(p, gradients[p], coefficients[p]).prepare()


def _measuring(
    optimizer: Optimizer, group: Group, p: Parameter, gradient: np.dtype[Any], scale: float = 1.0
) -> tuple[Kernel, tuple[Any, ...], NDArray[Any]]:
    """The kernel that measures a parameter, its coefficients, and where it adds up."""
    own = _measure_coefficients(optimizer, group, p)
    coefficients = _placed(group.measure_coefficients(own) + group.scale_coefficient(scale), p, {})
    products = p.blocks.cleared(group.products(p, len(coefficients)))
    coefficients = (*coefficients, p.blocks.bounds, products)
    return group.measure_kernel(p, gradient, coefficients), coefficients, products


def adapted(
    optimizer: Optimizer, group: Group, sums: Sums, scale: float = 1.0
) -> tuple[dict[Parameter, tuple[Any, ...]], Progress]:
    """The coefficients of each parameter of a group, and the scalars to keep."""
    if optimizer.per_tensor or group.hyper["cautious"]:
        with np.errstate(all="ignore"):  # it takes as long as a small step
            return _adapted(optimizer, group, sums, scale)
    return _adapted(optimizer, group, sums, scale)


def _adapted(optimizer: Optimizer, group: Group, sums: Sums, scale: float) -> tuple[dict[Parameter, tuple[Any, ...]], Progress]:
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
        group.require_numbers(own)
        coefficients[p] = _placed(own + group.option_coefficients + group.scale_coefficient(scale), p, named)
    return coefficients, progress


def _measure_coefficients(optimizer: Optimizer, group: Group, p: Parameter) -> tuple[float, ...]:
    t = group.step_count + 1
    before = {**group.current, **(p.scalars if optimizer.per_tensor else group.scalars)}
    if group.hyper["cautious"]:  # the measure is the rule itself
        return optimizer.coefficients({**before, **optimizer.advance(before, t, ())}, t)
    return optimizer.measure_coefficients(before, t)


def _over_all(sums: Sums) -> tuple[float, ...]:
    """Sums over all parameters, always in the same order."""
    return tuple(map(float, np.sum([totals.sum(axis=1) for totals in sums.values()], axis=0))) if sums else ()


def _caution(p: Parameter, agreeing: NDArray[Any]) -> NDArray[Any]:
    """How much further cautious steps go: by the share of the elements that they leave out."""
    sizes = np.maximum(np.diff(p.blocks.tensors), 1)
    factors: NDArray[Any] = 1.0 / np.maximum(agreeing / sizes, LEAST_AGREEMENT)
    return factors


def _placed(coefficients: Sequence[Any], p: Parameter, named: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
    """The coefficients as kernels take them: with arrays in place of names, and those of tensors in their form."""
    placed: list[Any] = []
    for coefficient in coefficients:
        value = named.get(coefficient, coefficient) if isinstance(coefficient, str) else coefficient
        if isinstance(value, str):
            value = p.elements[value]
        elif isinstance(value, np.ndarray):
            value = float(value[0]) if p.tensors == 1 else np.array(value, np.float64).reshape(-1, 1)
        placed.append(value)
    has_tensors = any(kind_of(value) == "tensors" for value in placed)
    return (*placed, p.blocks.tensors) if has_tensors else tuple(placed)
