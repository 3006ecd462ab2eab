"""A progress bar with the value, the gradient's norm and the rate: tqdm's where it is installed, else lines."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

LINES = 10


class Progress:
    """Shows how a minimization goes on.

    Parameters
    ----------
    disp : bool
        Whether it is to be shown at all.
    steps : int
        How many steps are taken at most.
    """

    def __init__(self, disp: bool, steps: int) -> None:
        self._disp, self._steps, self._bar = disp, steps, None
        if disp:
            try:
                self._bar = importlib.import_module("tqdm.auto").tqdm(total=steps, unit="step")
            except ImportError:  # it is no part of what fastopt needs
                self._every = max(steps // LINES, 1)

    def show(self, nit: int, value: float | None, g: Any, rate: Any) -> None:
        """Show a point that was evaluated."""
        if not self._disp:
            return
        norm = f"{np.linalg.norm(g):.3g}"
        numbers = {"fun": "-" if value is None else f"{value:.6g}", "norm": norm, "lr": f"{np.mean(rate):.3g}"}
        if self._bar is not None:
            self._bar.set_postfix(numbers, refresh=False)
            self._bar.update(nit - self._bar.n)
        elif nit % self._every == 0:
            print(
                f"step {nit} of {self._steps}: " + ", ".join(f"{key} {number}" for key, number in numbers.items()), flush=True
            )

    def close(self, message: str) -> None:
        """Leave the bar as it is, or tell how it ended."""
        if self._bar is not None:
            self._bar.close()
        elif self._disp:
            print(message, flush=True)
