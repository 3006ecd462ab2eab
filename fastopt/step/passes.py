"""What a step does with the tensors of a group in one pass over them: a rule, its operands, and the numbers it takes."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.codes import Codes
from fastopt.arrays.layout import complex_of
from fastopt.arrays.parameters import Parameter, require_writable
from fastopt.engine.compile import Rule, Variant
from fastopt.engine.formats import plain
from fastopt.engine.loop import ITEM
from fastopt.engine.tables import address

# A number, or the name of an array that has one for each element.
Coefficient = float | str


class Stochastic(NamedTuple):
    """What is rounded stochastically, and where its noise comes from."""

    of: Callable[[Parameter], Sequence[bool]]  # which of the arrays that the rule updates
    steps: NDArray[Any]  # their count, shape (1,)
    seed: int


NEAREST = Stochastic(lambda p: (), np.zeros(1, np.int64), 0)


class Pass:
    """A rule or a measure over the parameters of a group.

    Parameters
    ----------
    rule : callable
        It takes theta and the gradient, a rate, states, and coefficients.
    parameters : sequence of Parameter
        What it goes over.
    arrays : callable
        Gives the arrays of a parameter that the rule updates, theta first; or, if it measures, reads.
    lr : float or None
        None if each parameter has an array of them.
    coefficients : sequence
        As they are in the next step; their kinds stay what they are.
    is_by_tensor : bool, default False
        Whether some numbers, which compiled code writes, are those of each tensor.
    measures : int, default 0
        If the rule gives pairs of factors, whose products are summed up: how many arrays it reads besides the gradient.
    zeroes : bool, default False
        Whether the rule updates the gradient, right after theta.
    around : callable, optional
        Gives what makes the rule one for the arrays that hold a parameter, see `masters.around`.
    stochastic : Stochastic, optional
        What is rounded stochastically.
    of_rows : int, default 0
        How many of the last arrays have one number for each row of a parameter.

    Attributes
    ----------
    rows : ndarray of float64, shape (1 or tensors, numbers)
        What spans read: the rate and the coefficients that are numbers.
    products : int
        How many are summed up.
    names : list of str or None
        Of the rate and the coefficients: None for those in the rows, else that of an array.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Parameter],
        arrays: Callable[[Parameter], Sequence[NDArray[Any]]],
        lr: float | None,
        coefficients: Sequence[Coefficient],
        is_by_tensor: bool = False,
        measures: int = 0,
        zeroes: bool = False,
        around: Callable[[Parameter], Callable[[Rule], Rule] | None] = lambda p: None,
        stochastic: Stochastic = NEAREST,
        of_rows: int = 0,
    ) -> None:
        self.rule, self.parameters, self.zeroes, self.stochastic = rule, parameters, zeroes, stochastic
        self.of_rows = of_rows
        self._around = around
        self._arrays = arrays
        self.names = [None if lr is not None else "lr", *(c if isinstance(c, str) else None for c in coefficients)]
        self._has_names = any(isinstance(c, str) for c in coefficients)
        self._has_rate = lr is not None
        tensors = sum(len(p.tensor_sizes()) for p in parameters) if is_by_tensor else 1
        self._has_single_row = tensors == 1
        self._is_plain = self._has_rate and not self._has_names and self._has_single_row
        self._count = self.names.count(None)
        numbers = np.zeros((max(1, tensors), self._count))
        self.rows: NDArray[Any] = numbers[:tensors]
        self.is_by_tensor = is_by_tensor
        self._numbers: Any = memoryview(numbers.reshape(-1))  # type: ignore[arg-type, unused-ignore]
        self._pack = functools.partial(struct.Struct(f"{self._count}d").pack_into, self._numbers, 0)
        self.products = products_of(rule, measures + 2 + len(coefficients)) if measures else 0
        self.write(lr, coefficients)

    def write(self, lr: float | None, coefficients: Sequence[Coefficient]) -> None:
        """Let the next steps take these numbers."""
        if self._is_plain:
            try:
                self._pack(lr, *coefficients)
                return
            except struct.error:  # which is said below, in words
                pass
        numbers: Sequence[Any] = coefficients
        if self._has_names:
            numbers = [c for c in coefficients if not isinstance(c, str)]
        if self._has_rate:
            numbers = (lr, *numbers)
        if len(numbers) != self._count:
            given, before = (len(coefficients) + count - len(numbers) for count in (len(numbers), self._count))
            raise TypeError(f"coefficients must be as many at every step, got {given} instead of {before}")
        try:
            self._pack(*numbers)
        except (struct.error, OverflowError, TypeError, ValueError):
            raise TypeError(f"coefficients must be a tuple of floats, got {tuple(coefficients)!r}") from None
        if not self._has_single_row:
            self.rows[1:] = self.rows[:1]  # of which a group without arrays has none

    def write_rate(self, lr: float) -> None:
        """Let the next steps take this rate, and all else as before."""
        if self._has_single_row:
            self._numbers[0] = lr
        else:
            self.rows[:, 0] = lr

    def offset_of(self, place: int) -> int:
        """Where the number of a coefficient lies in a row, in bytes."""
        return ITEM * self.names[: 1 + place].count(None)

    def scale_cells(self) -> NDArray[Any]:
        """The addresses of the last numbers of all rows."""
        return np.array([address(row[-1:]) for row in self.rows], np.int64)

    def require_writable(self) -> None:
        """Raise ValueError unless the rule can write to what it updates."""
        for p in self.parameters:
            try:
                for array in self._arrays(p):
                    require_writable(p.name, array)
            except ValueError as wrong:
                raise ValueError(f"{wrong}; give the optimizer arrays that it can step by opt.rebind(params)") from None

    def variant(self, p: Parameter, gradient: np.dtype[Any]) -> Variant:
        """Which span goes over a parameter with gradients of some dtype."""
        theta, *states = map(element_of, self._arrays(p))
        g = np.result_type(gradient, np.complex64) if theta.kind == "c" else plain(gradient)
        around, stochastic = self._around(p), [*self.stochastic.of(p)]
        codes = [isinstance(array, Codes) for array in self._arrays(p)]
        stochastic = [each and not is_code for each, is_code in zip(stochastic, codes, strict=False)]  # of no span's own
        if self.zeroes:
            states.insert(self.zeroed(p) - 1, g)
            stochastic.insert(self.zeroed(p), False)
        reads = tuple(None if name is None else p.elements[name].dtype for name in self.names)
        rule = self.rule if around is None else around(self.rule)
        rounded = tuple(stochastic) if any(stochastic) else ()
        return Variant(rule, theta, g, tuple(states), reads, self.products, rounded, self.of_rows)

    def operands(self, p: Parameter) -> list[NDArray[Any] | None]:
        """All arrays in the order in which spans take them, None in the place of a gradient that is set to zero."""
        arrays: list[NDArray[Any] | None] = [*self._arrays(p)]
        if self.zeroes:
            arrays.insert(self.zeroed(p), None)
        return [*arrays, *(p.elements[name] for name in self.names if name is not None)]

    def words(self, p: Parameter) -> list[tuple[int, int]]:
        """What spans take after the arrays, and by how much each element moves that on: where noise is from, rows' length."""
        of_noise = [(address(self.stochastic.steps), 0), (self.stochastic.seed, 0), (p.first, 1)]
        if self.of_rows:
            return [*of_noise, (p.width, 0)]
        return of_noise if any(self.stochastic.of(p)) else []

    def zeroed(self, p: Parameter) -> int:
        """The place of the gradient among the operands, if it is set to zero: after what holds theta."""
        return 1 if self._around(p) is None else 2


def element_of(array: NDArray[Any]) -> np.dtype[Any]:
    """The dtype of what a loop takes at once: a number, or a pair, which is the complex number that its parts make."""
    dtype = np.dtype(np.float32) if isinstance(array, Codes) else plain(array.dtype)
    return dtype if array.ndim == 1 else complex_of(dtype)


@functools.cache
def products_of(measure: Rule, arguments: int) -> int:
    """How many products a measure sums up."""
    with np.errstate(all="ignore"):
        return len(measure(*[np.float64(1.0)] * arguments))
