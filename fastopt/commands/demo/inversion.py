"""Where was the dye? A field of 1024 x 1024 concentrations, recovered from a picture taken after stirring and diffusion.

The simulation stirs by alternating sine shears (Pierrehumbert, 1994) in a periodic box, and diffuses by explicit steps. A shear
by whole cells is a permutation, so its adjoint is its inverse; a diffusion step is symmetric, so it is its own adjoint. The
camera's sensitivity falls off towards the edges, and its picture is noisy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastopt

SIZE = 1024
SHEARS = 8
AMPLITUDE = 0.2  # of a shear, in widths of the box
DIFFUSIONS = 3  # explicit steps after each shear
DIFFUSIVITY = 0.25  # in cells and steps: the largest for which no wave changes its sign
NOISE = 0.01


class Stirring:
    """The simulation: a linear map of a concentration to the later one, and its adjoint.

    Parameters
    ----------
    size : int
        Cells along each side.
    rng : Generator
        For the phases of the shears.
    dtype : float32 or float64
        Of the fields.
    """

    def __init__(self, size: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        row, column = np.indices((size, size))
        self._moves = []  # for each shear, where a cell's dye comes from, and where it goes to
        for i, phase in enumerate(rng.uniform(0, 2 * np.pi, SHEARS)):
            along, across = (column, row) if i % 2 == 0 else (row, column)
            shift = np.rint(AMPLITUDE * size * np.sin(2 * np.pi * across / size + phase)).astype(np.intp)
            back, forth = (along - shift) % size, (along + shift) % size
            self._moves.append(
                (row * size + back, row * size + forth) if i % 2 == 0 else (back * size + column, forth * size + column)
            )
        self._spare, self._sum = np.empty((2, size, size), dtype)

    def forward(self, field: NDArray[Any]) -> NDArray[Any]:
        """The concentration after all shears and diffusions."""
        field, spare = field.copy(), self._spare
        for source, _ in self._moves:
            np.take(field, source, out=spare, mode="clip")
            field, spare = spare, field
            self._diffuse(field)
        return field.copy()

    def adjoint(self, field: NDArray[Any]) -> NDArray[Any]:
        """The transpose of `forward`: the same in reverse order."""
        field, spare = field.copy(), self._spare
        for _, target in reversed(self._moves):
            self._diffuse(field)
            np.take(field, target, out=spare, mode="clip")
            field, spare = spare, field
        return field.copy()

    def _diffuse(self, field: NDArray[Any]) -> None:
        for _ in range(DIFFUSIONS):
            for u, neighbours in ((field, self._sum), (field.T, self._sum.T)):
                np.add(u[2:], u[:-2], out=neighbours[1:-1])
                np.add(u[1], u[-1], out=neighbours[0])
                np.add(u[0], u[-2], out=neighbours[-1])
                neighbours *= DIFFUSIVITY
                u *= 1 - 2 * DIFFUSIVITY
                u += neighbours


class Inversion:
    """The problem for `training.train`: least squares over fields in (0, 1), which a sigmoid of the unknowns keeps there.

    Parameters
    ----------
    seed : int
        Decides on the stirring and the noise.
    size : int
        Cells along each side.
    dtype : float32 or float64
        Of everything.

    Attributes
    ----------
    true, data : ndarray, shape (size, size)
        The field to recover, and the picture of it after stirring.
    sensitivity : ndarray, shape (size, size)
        The camera's.
    """

    name = "inversion"
    epochs = 120

    def __init__(self, seed: int, size: int = SIZE, dtype: DTypeLike = np.float32) -> None:
        rng = np.random.default_rng(seed)
        y, x = (np.indices((size, size)) + 0.5) / size
        self.stirring = Stirring(size, rng, dtype)
        self.sensitivity = (1 - (x - 0.5) ** 2 - (y - 0.5) ** 2).astype(dtype)
        self.true = shapes(x, y).astype(dtype)
        noise = NOISE * rng.standard_normal((size, size))
        self.data = (self.sensitivity * self.stirring.forward(self.true) + noise).astype(dtype)

    def start(self) -> fastopt.Flat:
        """The unknowns of an even field of one quarter."""
        return fastopt.flatten({"z": np.full_like(self.data, np.log(1 / 3))})

    def rates(self, lr: float) -> fastopt.Flat:
        """`lr` over the illumination of each cell, which is how much of its dye the camera sees."""
        return fastopt.flatten({"z": lr / self.stirring.adjoint(self.sensitivity**2)})

    def losses(self, params: fastopt.Flat, grads: fastopt.Flat, epoch: int) -> Iterator[float]:
        """Half the sum of the squared misfits; every epoch is one step."""
        field = self.field(params)
        residual = self.sensitivity * self.stirring.forward(field) - self.data
        adjoint = self.stirring.adjoint(self.sensitivity * residual)
        np.multiply(adjoint, field * (1 - field), out=grads["z"])
        yield 0.5 * float(np.sum(np.square(residual), dtype=np.float64))

    def field(self, params: fastopt.Flat) -> NDArray[Any]:
        """The field of some unknowns: their sigmoid, by a function that can't overflow."""
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * params["z"]))

    def score(self, params: fastopt.Flat) -> float:
        """Root mean square error of the field."""
        return float(np.sqrt(np.mean((self.field(params) - self.true) ** 2)))


def shapes(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """A ring, a disc, a ramp, and bars that get narrower, in the unit square."""
    radius = np.hypot(x - 0.28, y - 0.28)
    ring = (radius > 0.11) & (radius < 0.19)
    disc = np.hypot(x - 0.72, y - 0.72) < 0.16
    bars = (np.abs(x - 0.72) < 0.19) & (np.abs(y - 0.28) < 0.15) & (np.sin(48 * np.pi * x**2) > 0)
    ramp = np.where((np.abs(x - 0.28) < 0.16) & (np.abs(y - 0.72) < 0.16), (x - 0.12) / 0.32, 0)
    return ring + disc + bars + ramp
