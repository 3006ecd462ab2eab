"""The schedule that looks at what is achieved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastopt.description.hyperparameters import Check, OneOf, finite, integer, real
from fastopt.schedules.common import require_booleans, require_finite, require_integers, require_nonnegative
from fastopt.schedules.nested import require_state


@dataclass
class ReduceOnPlateau:
    """Multiplied by a factor whenever a metric has not improved for some time.

    Call `update` with each new value of the metric. The optimizer's state dict has what it remembers.

    Parameters
    ----------
    initial : float
        The value at first.
    factor : float, default 0.1
        What it is multiplied by, less than 1.
    patience : int, default 10
        How many updates without improvement are tolerated.
    threshold : float, default 1e-4
        How much better than the best metric so far one must be to count as an improvement.
    mode : {"min", "max"}, default "min"
        Whether the metric should become small or large.
    relative : bool, default True
        Whether the threshold is relative to the size of the best metric, whatever its sign.
    cooldown : int, default 0
        Updates after a reduction in which none is counted.
    lowest : float, default 0
        The value goes no further down.
    eps : float, default 1e-8
        Smaller changes of the value are left out.
    signed : bool, default False
        Let the relative threshold have the sign of the best metric, as in PyTorch. For metrics below 0 it then asks for less
        than no improvement: one that stays the same counts as better for ever.

    Examples
    --------
    >>> from fastopt.schedules import ReduceOnPlateau
    >>> schedule = ReduceOnPlateau(1.0, factor=0.5, patience=1)
    >>> values = []
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     schedule.update(loss)
    ...     values.append(schedule(0))
    >>> values
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    initial: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    mode: str = "min"
    relative: bool = True
    cooldown: int = 0
    lowest: float = 0.0
    eps: float = 1e-8
    signed: bool = False
    _memory: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require_finite(self, "initial", "factor", "lowest")
        require_nonnegative(self, "threshold", "eps")
        require_integers(self, patience=0, cooldown=0)
        require_booleans(self, "relative", "signed")
        OneOf("min", "max")("mode", self.mode)
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be more than 0 and less than 1, got {self.factor!r}")
        best = math.inf if self.mode == "min" else -math.inf
        self._memory = {"value": self.initial, "best": best, "bad": 0, "cooling": 0}

    def __call__(self, step: int) -> float:
        """The present value, whatever the step."""
        return self._memory["value"]

    def update(self, metric: float) -> None:
        """Take a new value of the metric.

        Parameters
        ----------
        metric : float
            For example the loss on validation data after an epoch. NaN is no improvement.

        Raises
        ------
        TypeError
            If it is no number.
        """
        memory = self._memory
        metric = real("metric", metric)
        if self._is_better(metric, memory["best"]):
            memory |= {"best": metric, "bad": 0}
        else:
            memory["bad"] += 1
        if memory["cooling"] > 0:
            memory |= {"cooling": memory["cooling"] - 1, "bad": 0}
        if memory["bad"] > self.patience:
            reduced = max(memory["value"] * self.factor, self.lowest)
            if memory["value"] - reduced > self.eps:
                memory["value"] = reduced
            memory |= {"cooling": self.cooldown, "bad": 0}

    def state_dict(self) -> dict[str, float]:
        """What it remembers.

        Returns
        -------
        dict
            Plain numbers.
        """
        return dict(self._memory)

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave.

        Parameters
        ----------
        state_dict : mapping
            From a schedule with the same arguments.

        Raises
        ------
        TypeError, ValueError
            If its keys are other ones, or what it has is not what they stand for. Nothing is changed then.
        """
        require_state(self, state_dict, self._memory)
        checks: dict[str, Check] = {"value": finite, "best": real, "bad": integer, "cooling": integer}
        self._memory = {key: check(f"the state's {key!r}", state_dict[key]) for key, check in checks.items()}

    def _is_better(self, metric: float, best: float) -> bool:
        margin = self.threshold
        if self.relative:
            size = best if self.signed else abs(best)
            margin = margin * size if math.isfinite(best) else 0.0
        return metric < best - margin if self.mode == "min" else metric > best + margin
