"""A look at all gradients before a step: their norm, by which they are clipped, and whether they are finite.

Both come of one sum of squares in double precision, a pass that only reads the gradients. It is finite if all of them are, and
an infinite or a NaN element makes it infinite or NaN. Only where squares of float64 leave the range of double precision does
NumPy have a second look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import part
from fastopt.engine.transforms import excluding, scaling
from fastopt.groups import Group
from fastopt.measuring import measuring, placed, summed
from fastopt.parameters import Parameter

# A sum of squares beyond these may have lost some of its terms.
LEAST, LARGEST = 1e-290, np.finfo(np.float64).max


@part
def squares(theta: Any, g: Any, lr: Any) -> Any:
    """The square of the gradient, to be summed up."""
    return ((g, g),)


class Survey:
    """The norms of all gradients, and what follows from them.

    Parameters
    ----------
    clip_norm : float, optional
        What the norm of all gradients together is limited to.
    nonfinite : {"propagate", "skip", "raise"}
        What to do about gradients that are not finite.

    Attributes
    ----------
    norm : float or None
        The norm at the last look.
    """

    def __init__(self, clip_norm: float | None, nonfinite: str) -> None:
        self.clip_norm = clip_norm
        self.nonfinite = nonfinite
        self.norm: float | None = None

    def is_needed(self, groups: Sequence[Group]) -> bool:
        """Whether the next step must look at its gradients."""
        return (
            self.clip_norm is not None
            or self.nonfinite != "propagate"
            or any(group.hyper["clip_norm"] is not None for group in groups)
        )

    def passes(self, groups: Sequence[Group], vectors: Mapping[Parameter, NDArray[Any]]) -> bool:
        """Look at the gradients, and multiply the groups' scales by what clips them.

        Parameters
        ----------
        groups : sequence of Group
            Those that take the step; their ``scale`` counts.
        vectors : mapping
            The gradient of each parameter.

        Returns
        -------
        bool
            False if the step is to be skipped.

        Raises
        ------
        ValueError
            If a gradient is not finite, and `nonfinite` is ``"raise"``.
        """
        norms = [math.hypot(*(_norm(group, p, vectors[p]) for p in group.parameters)) for group in groups]
        self.norm = math.hypot(*norms)
        if self.nonfinite != "propagate" and not math.isfinite(self.norm):
            found = _first_nonfinite(groups, vectors)
            if found and self.nonfinite == "raise":
                raise ValueError(found)
            if found:
                return False
        limits = [group.current["clip_norm"] for group in groups]
        own = [_factor(norm, limit) for norm, limit in zip(norms, limits, strict=True)]
        limited = [limit if limit is not None and norm > limit else norm for norm, limit in zip(norms, limits, strict=True)]
        common = _factor(math.hypot(*limited), self.clip_norm)
        for group, factor in zip(groups, own, strict=True):
            group.scale *= factor * common
        return True


def warm(group: Group, gradients: Mapping[Parameter, np.dtype[Any]]) -> None:
    """Compile what a look at the gradients of a group will run, or load it from the cache."""
    measure, names = _measure(group)
    for p in group.parameters:
        measuring(p, measure, p.arrays[:1], gradients[p], placed(names, p, {}))[0].compile()


def _measure(group: Group) -> tuple[Any, tuple[Any, ...]]:
    """What is summed up in a group, and its coefficients: the gradient as the rule will see it, but for the clipping."""
    measure: Any = squares
    names: tuple[Any, ...] = ()
    if group.hyper["mask"] is not None:
        measure, names = excluding(measure), (0.0, "mask")
    return (scaling(measure), (*names, group.scale)) if group.scales else (measure, names)


def _norm(group: Group, p: Parameter, g: NDArray[Any]) -> float:
    measure, names = _measure(group)
    total = float(summed(p, measure, p.arrays[:1], g, 0.0, placed(names, p, {})).sum())
    if LEAST <= total <= LARGEST or p.theta.dtype != np.float64:
        return math.sqrt(total) if total >= 0.0 else math.nan
    if not g.any():
        return 0.0
    with np.errstate(all="ignore"):
        seen = np.abs(_seen(group, p, g))
        largest = float(seen.max(initial=0.0))
        if largest in (0.0, math.inf) or math.isnan(largest):
            return largest
        return largest * math.sqrt(float(np.square(seen / largest).sum()))


def _seen(group: Group, p: Parameter, g: NDArray[Any]) -> NDArray[Any]:
    """The gradient as the rule will see it, but for the clipping; 0 where it sees none."""
    seen = g.astype(p.theta.dtype)
    if group.scales:
        seen *= seen.dtype.type(group.scale)
    if group.hyper["mask"] is not None:
        seen[~p.elements["mask"]] = 0.0
    return seen


def _first_nonfinite(groups: Sequence[Group], vectors: Mapping[Parameter, NDArray[Any]]) -> str | None:
    """What to say of the first element that is not finite; a norm can be infinite without one."""
    for group in groups:
        for p in group.parameters:
            with np.errstate(all="ignore"):
                seen = _seen(group, p, vectors[p])
            wrong = np.flatnonzero(~np.isfinite(seen))
            if wrong.size:
                name, index = p.place(int(wrong[0]))
                return f"the gradient of {name} must be finite, got {seen.flat[wrong[0]]} at index {index}"
    return None


def _factor(norm: float, limit: float | None) -> float:
    """What limits a norm; NaN for one that is NaN."""
    return 1.0 if limit in (None, math.inf) or norm <= limit else limit / norm
