"""What every optimizer can do besides its own rule: hyper-parameters that all of them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from fastopt.engine.compile import Rule
from fastopt.engine.transforms import agreement, ascending, cautious, decaying, excluding, masked, shrinking

# A number, or the name of an array that each parameter has of its own: see `Parameter.elements`.
Coefficient = float | str


class Options(TypedDict, total=False):
    """Keyword arguments that every optimizer takes, besides ``weight_decay``: see `Optimizer`."""

    decoupled_weight_decay: bool
    maximize: bool
    cautious: bool
    mask: Any
    frozen: bool
    by_name: Mapping[str, Mapping[str, Any]] | None


DEFAULTS: dict[str, Any] = {
    "weight_decay": 0.0,
    "decoupled_weight_decay": False,
    "maximize": False,
    "cautious": False,
    "mask": None,
    "frozen": False,
}


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

    Attributes
    ----------
    rule : callable
        The result.
    """

    def __init__(self, inner: Rule, hyper: Mapping[str, Any], own: Collection[str], measures: bool = False) -> None:
        self._names: list[Coefficient] = []
        if hyper["cautious"]:
            inner = agreement(inner) if measures else cautious(inner)
            self._names += [0.0, 1.0 if measures else "caution"]
        decay = hyper["weight_decay"]
        if "weight_decay" not in own and (callable(decay) or decay > 0.0):
            inner = shrinking(inner) if hyper["decoupled_weight_decay"] else decaying(inner)
            self._names += ["weight_decay"]
        if hyper["mask"] is not None:
            inner = excluding(inner) if measures else masked(inner)
            self._names += [0.0, "mask"] if measures else ["mask"]
        self.rule = ascending(inner) if hyper["maximize"] else inner

    def coefficients(self, numbers: Mapping[str, Any]) -> tuple[Coefficient, ...]:
        """What this takes after the rule's own coefficients, with the numbers of hyper-parameters by name."""
        return tuple(numbers[name] if name == "weight_decay" else name for name in self._names)
