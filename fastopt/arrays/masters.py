"""What parameters of 16 bits lose of the numbers that rules compute, kept beside them.

Either a *master* copy in float32, whose nearest 16-bit number the parameter is; or, of bfloat16, the 16 bits that it lost, so
that both together are the float32: two bytes less an element; or the first 8 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import Rule
from fastopt.engine.formats import FORMATS, decoded, plain
from fastopt.engine.rounding import joined
from fastopt.engine.transforms import PLACE, copying, joining, joining_8, joining_measure, joining_measure_8

if TYPE_CHECKING:
    from fastopt.arrays.parameters import Parameter

Transform = Callable[[Rule], Rule]

# The states that hold them, and their dtypes.
MASTER, LOST, LOST_8 = "theta_master", "theta_lost", "theta_lost_8"
DTYPES: Mapping[str, np.dtype[Any]] = {MASTER: np.dtype(np.float32), LOST: np.dtype(np.int16), LOST_8: np.dtype(np.int8)}

WAYS = {False: None, True: MASTER, "float32": MASTER, "lost bits": LOST, "8 lost bits": LOST_8}

# What makes a rule, and a measure, one that takes the arrays of `vectors`.
AROUND: Mapping[str, tuple[Transform, Transform | None]] = {
    MASTER: (copying, None),
    LOST: (joining, joining_measure),
    LOST_8: (joining_8, joining_measure_8),
}


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
    if state in (LOST, LOST_8) and dtype == np.float16:
        raise ValueError(f"master_weights={way!r} is for bfloat16, and {name} is of float16; take 'float32'")
    return state


def kept_by(p: Parameter) -> str | None:
    """The state in which a parameter keeps what it loses."""
    return next((name for name in DTYPES if name in p.states), None)


def vectors(p: Parameter, is_measured: bool = False) -> list[NDArray[Any]]:
    """The arrays that hold a parameter, as rules and measures take them with what `around` makes of these."""
    state = kept_by(p)
    if state is None:
        return [p.theta]
    if state == MASTER:
        return [p.states[MASTER]] if is_measured else [p.states[MASTER], p.theta]
    return [p.theta, p.states[state]]


def around(p: Parameter) -> Transform | None:
    """What makes a rule one that takes the arrays of `vectors`; None for most parameters."""
    state = kept_by(p)
    return None if state is None else AROUND[state][0]


def around_measure(p: Parameter) -> Transform | None:
    """The same for a measure."""
    state = kept_by(p)
    return None if state is None else AROUND[state][1]


def values(p: Parameter) -> NDArray[Any]:
    """The numbers of a parameter as rules take them, as a vector; only to be read."""
    state = kept_by(p)
    if state is None:
        return decoded(p.theta)
    if state == MASTER:
        return p.states[MASTER]
    lost = p.states[state].astype(np.float32) * (PLACE if state == LOST_8 else 1)
    return joined(decoded(p.theta), lost)  # type: ignore[no-any-return]
