"""The best point that was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.minimization.stopping import Told


class Best:
    """The point with the least value so far.

    Parameters
    ----------
    told : Told
        What to look at.
    """

    memory = ("value", "x", "gradient")

    def __init__(self, told: Told) -> None:
        self._told = told
        self.value, self.x, self.gradient = math.inf, told.x.copy(), np.zeros_like(told.x)

    def see(self) -> None:
        """Keep the present point, if it is better."""
        told = self._told
        if told.value < self.value:
            self.value, self.x, self.gradient = told.value, told.x[told.part].copy(), told.found[told.part].copy()

    def fields(self) -> Mapping[str, Any]:
        """What a result has of it."""
        return {"x": self.x.copy(), "fun": self.value, "jac": self.gradient.copy()}
