"""What parameters of 16 bits lose of the numbers that rules compute, kept beside them.

Either a *master* copy in float32, whose nearest 16-bit number the parameter is; or, of bfloat16, the 16 bits that it lost, so
that both together are the float32: two bytes less an element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import Rule
from fastopt.engine.formats import FORMATS, decoded, plain
from fastopt.engine.rounding import joined
from fastopt.engine.transforms import copying, joining, joining_measure

if TYPE_CHECKING:
    from fastopt.arrays.parameters import Parameter

# The states that hold them, and their dtypes.
MASTER, LOST = "theta_master", "theta_lost"
DTYPES: Mapping[str, np.dtype[Any]] = {MASTER: np.dtype(np.float32), LOST: np.dtype(np.int16)}

WAYS = {False: None, True: MASTER, "float32": MASTER, "lost bits": LOST}


def state_of(name: str, way: Any, dtype: np.dtype[Any]) -> str | None:
    """The state that a parameter of some dtype needs for a way to keep what it loses.

    Raises
    ------
    ValueError
        If it can't be kept in this way.
    """
    if plain(dtype) not in FORMATS:
        return None
    state = WAYS[way]
    if state == LOST and dtype == np.float16:
        raise ValueError(f"master_weights='lost bits' is for bfloat16, and {name} is of float16; take 'float32'")
    return state


def vectors(p: Parameter, is_measured: bool = False) -> list[NDArray[Any]]:
    """The arrays that hold a parameter, as rules and measures take them with what `around` makes of these."""
    if MASTER in p.states:
        return [p.states[MASTER]] if is_measured else [p.states[MASTER], p.theta]
    return [p.theta, p.states[LOST]] if LOST in p.states else [p.theta]


def around(p: Parameter) -> Callable[[Rule], Rule] | None:
    """What makes a rule one that takes the arrays of `vectors`; None for most parameters."""
    return copying if MASTER in p.states else joining if LOST in p.states else None


def around_measure(p: Parameter) -> Callable[[Rule], Rule] | None:
    """The same for a measure."""
    return joining_measure if LOST in p.states else None


def values(p: Parameter) -> NDArray[Any]:
    """The numbers of a parameter as rules take them, as a vector; only to be read."""
    if MASTER in p.states:
        return p.states[MASTER]
    if LOST in p.states:
        return joined(decoded(p.theta), p.states[LOST])  # type: ignore[no-any-return]
    return decoded(p.theta)
