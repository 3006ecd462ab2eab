"""Which states the parameters of a group have, and in which dtypes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.arrays import masters
from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.description.hyperparameters import INT8
from fastopt.description.recipe import Description
from fastopt.engine.formats import bfloat16, decoded

# Hyper-parameters that decide about memory, which is there from the beginning.
FIXED = ("state_dtype", "master_weights")


def needed_states(hyper: Mapping[str, Any], names: Sequence[str], parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """The states of the optimizer's own rule, and what the options need."""
    kept = {masters.state_of(p.name, hyper["master_weights"], p.theta.dtype) for p in parameters} - {None}
    averages = (AVERAGE,) if hyper["ema_decay"] is not None else ()
    return (*sorted(kept, key=str), *averages, *names)


def has_state(hyper: Mapping[str, Any], p: Parameter, name: str) -> bool:
    """Whether a parameter of a group with this state has it itself: of what 16 bits lose, those that lose something."""
    return name not in masters.DTYPES or masters.state_of(p.name, hyper["master_weights"], p.theta.dtype) == name


def first_value(description: Description, hyper: Mapping[str, Any], name: str, p: Parameter) -> Any:
    """What a state holds before the first step."""
    if name == AVERAGE:
        return masters.values(p)
    if name in masters.DTYPES:
        return decoded(p.theta) if name == masters.MASTER else 0.0
    return description.initial(name, hyper, masters.values(p))


def dtype_of(description: Description, hyper: Mapping[str, Any], name: str, p: Parameter) -> np.dtype[Any]:
    """The dtype of a state."""
    if name in masters.DTYPES:
        return masters.DTYPES[name]
    chosen = hyper["state_dtype"]
    is_named = isinstance(chosen, Mapping)
    if is_named:
        chosen = chosen.get(name)
    starts_as_theta = name == AVERAGE or np.ndim(description.initial(name, hyper, p.theta[:0])) > 0
    is_copy = starts_as_theta or name in description.copies_of_theta
    if is_copy and is_named and chosen == INT8:
        raise ValueError(
            f"state_dtype can't be 'int8' for {name!r}, which holds a copy of theta: 8 bits can't follow its steps"
        )
    # A copy of theta moves by less than its last place if that is coarse.
    if chosen is None or (is_copy and not is_named):
        return p.dtype
    if chosen == INT8:
        return np.dtype(np.uint8 if name in description.nonnegative_states else np.int8)
    return bfloat16() if chosen == "bfloat16" else np.dtype(chosen)


def require_known(hyper: Mapping[str, Any], names: Collection[str], optimizer: str) -> None:
    """Raise ValueError if formats are given for states that there aren't."""
    chosen = hyper["state_dtype"]
    own = [name for name in names if name not in masters.DTYPES]
    if isinstance(chosen, Mapping) and (unknown := [name for name in chosen if name not in own]):
        has = f"it has {', '.join(own)}" if own else "it has none"
        raise ValueError(f"state_dtype names a state {unknown[0]!r}, which this {optimizer} has not; {has}")
