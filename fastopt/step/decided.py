"""Numbers of a group that compiled code computes in each step, and what it takes for that."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.decisions import Decision, decision
from fastopt.step.passes import Pass

# Cautious steps are lengthened at most a thousandfold (Liang et al., 2024, in their code).
LEAST_AGREEMENT = 1e-3


@decision
def lengthening(t: Any, agreeing: Any, size: Any) -> Any:
    """By what a cautious step is lengthened, from the number of elements that it moves and that of all."""
    return (1.0 / max(agreeing / max(size, 1.0), LEAST_AGREEMENT),)


class Decided:
    """A decision with the numbers that it takes.

    Parameters
    ----------
    function : callable
        Made by `decision`.
    numbers : sequence of float, or ndarray, shape (tensors, numbers)
        What it takes after scalars and sums: the same for all tensors, or for each its own.
    scalars, sums : int
        How many running scalars and sums it takes.
    moves : bool, default True
        Whether it gives new scalars.

    Attributes
    ----------
    decision : Decision
    numbers : ndarray of float64
    placeholders : tuple of float
        What stands for the coefficients until they are known.
    """

    def __init__(
        self, function: Any, numbers: Sequence[float] | NDArray[Any], scalars: int, sums: int, moves: bool = True
    ) -> None:
        shape: tuple[int, ...] = np.shape(numbers)
        count = shape[-1]
        self.numbers: NDArray[Any] = np.zeros(shape)
        self._pack: Any = struct.Struct(f"{self.numbers.size}d").pack_into
        self.write(numbers.ravel().tolist() if isinstance(numbers, np.ndarray) else numbers)
        moved = scalars if moves else 0
        results = len(function(1.0, *[0.5] * (scalars + sums + count))) - moved
        self.decision = Decision(function, scalars, sums, count, moved, results)
        self.placeholders = (1.0,) * results
        self.number_bytes = self.numbers.strides[0] if self.numbers.ndim > 1 else 0  # between the numbers of two tensors

    def write(self, numbers: Sequence[float]) -> None:
        """Let the next steps take these numbers: as many as before."""
        try:
            self._pack(self.numbers, 0, *numbers)
        except struct.error:
            raise TypeError(f"decision_numbers must be a tuple of {self.numbers.size} floats, got {numbers!r}") from None


class Call(NamedTuple):
    """A decision, and where the coefficients belong."""

    decided: Decided
    of_pass: Pass
    offset: int = 0  # in each row, in bytes
    is_early: bool = True  # before anything is summed up
    has_own_sums: bool = False  # of each tensor, not those over all
    has_own_scalars: bool = False
