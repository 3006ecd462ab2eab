"""What every optimizer can do besides its own rule: hyper-parameters that all of them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from fastopt.engine.compile import Rule
from fastopt.engine.transforms import (
    agreement,
    ascending,
    averaging,
    cautious,
    clipping,
    copying,
    decaying,
    excluding,
    flushing,
    masked,
    projecting,
    scaling,
    shrinking,
    thresholding,
    zeroing,
)

# A number, or the name of an array that each parameter has of its own: see `Parameter.elements`.
Coefficient = float | str


class Options(TypedDict, total=False):
    """Keyword arguments that every optimizer takes, besides ``weight_decay``: see `Optimizer`."""

    decoupled_weight_decay: bool
    maximize: bool
    clip_norm: float | None
    clip_value: float | None
    nonfinite: str
    complex_mode: str
    reduction: str
    l1: float
    bounds: Any
    ema_decay: Any
    copy_to: Any
    zero_grad: bool
    flush_subnormals: bool
    cautious: bool
    mask: Any
    frozen: bool
    by_name: Mapping[str, Mapping[str, Any]] | None


# Of each group.
DEFAULTS: dict[str, Any] = {
    "weight_decay": 0.0,
    "decoupled_weight_decay": False,
    "maximize": False,
    "clip_norm": None,
    "clip_value": None,
    "l1": 0.0,
    "bounds": None,
    "ema_decay": None,
    "copy_to": None,
    "zero_grad": False,
    "flush_subnormals": False,
    "cautious": False,
    "mask": None,
    "frozen": False,
}

# Of the optimizer as a whole; those of the same name in groups are others.
WHOLE: dict[str, Any] = {"clip_norm": None, "nonfinite": "propagate", "reduction": "mean", "complex_mode": "parts"}


class Wrapped:
    """A rule with what some hyper-parameters ask for around it, or a measure with what changes the gradient it sees.

    Parameters
    ----------
    inner : callable
        The rule, or the measure.
    hyper : mapping
        Hyper-parameters; a schedule counts as an option that is on.
    own : collection of str
        Hyper-parameters that the rule itself carries out.
    measures : bool, default False
        Whether it is a measure.
    scales : bool, default False
        Whether the gradient is scaled; then the scale comes after all other coefficients.

    Attributes
    ----------
    rule : callable
        The result.
    names : list of float or str
        What it takes after the rule's own coefficients: constants, and names of hyper-parameters and arrays.
    """

    def __init__(
        self, inner: Rule, hyper: Mapping[str, Any], own: Collection[str], measures: bool = False, scales: bool = False
    ) -> None:
        self.names: list[Coefficient] = []
        if hyper["cautious"]:
            inner = agreement(inner) if measures else cautious(inner)
            self.names += [0.0, 1.0 if measures else "caution"]
        if "weight_decay" not in own and is_on(hyper["weight_decay"]):
            inner = shrinking(inner) if hyper["decoupled_weight_decay"] else decaying(inner)
            self.names += ["weight_decay"]
        if not measures and "l1" not in own and is_on(hyper["l1"]):
            inner = thresholding(inner)
            self.names += [0.0, "l1"]
        if not measures and hyper["bounds"] is not None:
            inner = projecting(inner)
            self.names += [0.0, "lower", "upper"]
        if not measures and hyper["ema_decay"] is not None:
            inner = averaging(inner)
            self.names += ["ema_decay", "ema_share", 0.5]
        if not measures and hyper["flush_subnormals"]:
            inner = flushing(inner)
        if hyper["mask"] is not None:
            inner = excluding(inner) if measures else masked(inner)
            self.names += [0.0, "mask"] if measures else ["mask"]
        if hyper["maximize"]:
            inner = ascending(inner)
        if hyper["clip_value"] is not None:
            inner = clipping(inner)
            self.names += ["clip_value"]
        if scales:
            inner = scaling(inner)
        if not measures and hyper["copy_to"] is not None:
            inner = copying(inner)
        if not measures and hyper["zero_grad"]:
            inner = zeroing(inner)
        self.rule = inner

    def coefficients(self, numbers: Mapping[str, Any]) -> tuple[Coefficient, ...]:
        """What this takes after the rule's own coefficients, with the numbers of hyper-parameters by name."""
        values = {name: numbers[name] for name in ("weight_decay", "l1", "clip_value", "ema_decay")}
        if "ema_share" in self.names and not callable(numbers["ema_decay"]):
            values["ema_share"] = 1.0 - numbers["ema_decay"]
        if numbers["bounds"] is not None:
            sides = zip(("lower", "upper"), numbers["bounds"], strict=True)
            values |= {name: side for name, side in sides if isinstance(side, float)}
        return tuple(values.get(name, name) if isinstance(name, str) else name for name in self.names)


def is_on(value: Any) -> bool:
    """Whether a number does anything: a schedule counts as one that does."""
    return callable(value) or value > 0.0
