"""Which states the parameters of a group have, and in which dtypes."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.arrays import masters
from fastopt.arrays.parameters import AVERAGE, Parameter
from fastopt.arrays.rows import require_table
from fastopt.description.hyperparameters import INT8
from fastopt.description.recipe import Choice, Description
from fastopt.engine.codes import CODES
from fastopt.engine.formats import bfloat16, decoded
from fastopt.engine.pairs import paired_states

# Hyper-parameters that decide about memory, which is there from the beginning.
FIXED = ("state_dtype", "master_weights", "per_row")


def needed_states(hyper: Mapping[str, Any], names: Sequence[str], parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """The states of the optimizer's own rule, and what the options need."""
    kept = {masters.state_of(p.name, hyper["master_weights"], p.theta.dtype) for p in parameters} - {None}
    averages = (AVERAGE,) if hyper["ema_decay"] is not None else ()
    return (*sorted(kept, key=str), *averages, *names)


def has_state(hyper: Mapping[str, Any], p: Parameter, name: str) -> bool:
    """Whether a parameter of a group with this state has it itself: of what 16 bits lose, those that lose something."""
    return name not in masters.DTYPES or masters.state_of(p.name, hyper["master_weights"], p.theta.dtype) == name


def chosen(description: Description, hyper: Mapping[str, Any]) -> Choice:
    """The rule for some hyper-parameters, and the names of its states.

    Raises
    ------
    ValueError
        If they contradict each other.
    """
    name = type(description).__name__
    if hyper["cautious"] and description.measure(hyper) is not None:
        raise ValueError(f"cautious=True is not for {name}, whose step depends on norms of the whole update")
    rule, names = description.choose(hyper)
    if AVERAGE in names:
        raise ValueError(f"{name} can't have a state {AVERAGE!r}: the average of the parameters has that name")
    if description.states_of_rows(hyper) and (hyper["cautious"] or hyper["mask"] is not None):
        option = "cautious" if hyper["cautious"] else "mask"
        raise ValueError(f"{option} is not for states of rows, which all elements of a row share")
    return rule, names


def note_states_of_rows(description: Description, hyper: Mapping[str, Any], parameters: Sequence[Parameter]) -> None:
    """Let parameters know which of their states have one number for each row.

    Raises
    ------
    TypeError, ValueError
        If a parameter has no rows of real numbers.
    """
    if not (names := description.states_of_rows(hyper)):
        return
    for p in parameters:
        require_table(p)
        if p.is_complex:
            raise ValueError(f"{p.name} is complex, and per_row=True is for real tables")
        p.of_rows = names


def first_value(description: Description, hyper: Mapping[str, Any], name: str, p: Parameter) -> Any:
    """What a state holds before the first step."""
    if name == AVERAGE:
        return masters.values(p)
    if name in masters.DTYPES:
        return decoded(p.theta) if name == masters.MASTER else 0.0
    return description.initial(name, hyper, masters.values(p))


def paired(
    description: Description, hyper: Mapping[str, Any], choice: Choice, parameters: Sequence[Parameter]
) -> frozenset[str]:
    """The states that are complex where rules take pairs."""
    rule, names = choice
    starts = {name: [first_value(description, hyper, name, p) for p in parameters] for name in names}
    known = [name for name, values in starts.items() if any(map(np.ndim, values))]
    return paired_states(rule, names, [AVERAGE, *known], len(inspect.signature(rule).parameters) - 3 - len(names))


def dtype_of(description: Description, hyper: Mapping[str, Any], name: str, p: Parameter) -> np.dtype[Any]:
    """The dtype of a state."""
    if name in masters.DTYPES:
        return masters.DTYPES[name]
    chosen = hyper["state_dtype"]
    if chosen is None:
        return p.dtype
    is_named = isinstance(chosen, Mapping)
    if is_named:
        chosen = chosen.get(name)
    starts_as_theta = name == AVERAGE or np.ndim(description.initial(name, hyper, p.theta[:0])) > 0
    is_copy = starts_as_theta or name in description.copies_of_theta
    if is_copy and is_named and chosen == INT8:
        raise ValueError(
            f"state_dtype can't be 'int8' for {name!r}, which theta comes from, or a copy of it: 8 bits can't follow its steps"
        )
    if name in p.of_rows and is_named and chosen == INT8:
        raise ValueError(f"state_dtype can't be 'int8' for {name!r}, which has one number for each row")
    # What theta is computed from, or a copy of it, moves by less than a coarse last place, and numbers of rows are few.
    if chosen is None or (not is_named and (is_copy or (name in p.of_rows and chosen == INT8))):
        return p.dtype
    if chosen == INT8:
        return np.dtype(np.uint8 if name in description.nonnegative_states else np.int8)
    return bfloat16() if chosen == "bfloat16" else np.dtype(chosen)


def is_coded(name: str, dtype: np.dtype[Any]) -> bool:
    """Whether a state of this dtype has codes of 8 bits: lost bits are no codes."""
    return dtype in CODES and name not in masters.DTYPES


def require_known(hyper: Mapping[str, Any], names: Collection[str], optimizer: str) -> None:
    """Raise ValueError if formats are given for states that there aren't."""
    chosen = hyper["state_dtype"]
    own = [name for name in names if name not in masters.DTYPES]
    if isinstance(chosen, Mapping) and (unknown := [name for name in chosen if name not in own]):
        has = f"it has {', '.join(own)}" if own else "it has none"
        raise ValueError(f"state_dtype names a state {unknown[0]!r}, which this {optimizer} has not; {has}")
