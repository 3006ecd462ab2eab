"""The schedule that looks at what is achieved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastopt.hyperparameters import finite
from fastopt.schedules.common import require_finite


@dataclass
class ReduceOnPlateau:
    """Multiplied by a factor whenever a metric has not improved for some time, as in PyTorch.

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
        What counts as an improvement.
    mode : {"min", "max"}, default "min"
        Whether the metric should become small or large.
    relative : bool, default True
        Whether the threshold is relative to the best metric.
    cooldown : int, default 0
        Updates after a reduction in which none is counted.
    lowest : float, default 0
        The value goes no further down.
    eps : float, default 1e-8
        Smaller changes of the value are left out.

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
    _memory: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require_finite(self, "initial", "threshold", "lowest", "eps")
        if not 0 < finite("factor", self.factor) < 1:
            raise ValueError(f"factor must be more than 0 and less than 1, got {self.factor!r}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
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
            For example the loss on validation data after an epoch.
        """
        memory = self._memory
        metric = float(metric)
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
        ValueError
            If its keys are other ones. Nothing is changed then.
        """
        if set(state_dict) != set(self._memory):
            raise ValueError(f"the state of ReduceOnPlateau has the keys {sorted(self._memory)}, got {sorted(state_dict)}")
        self._memory = {key: float(value) for key, value in state_dict.items()}

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if not self.relative:
            return sign * metric < sign * best - self.threshold
        return sign * metric < sign * best * (1.0 - sign * self.threshold if math.isfinite(best) else 1.0)
