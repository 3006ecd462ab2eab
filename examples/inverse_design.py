"""Inverse design in a box: permittivities of layers that pass one wavelength of light and block another one.

The field in one dimension follows Helmholtz' equation, E'' + k^2 eps E = source, with outgoing waves at both ends. Each step
solves it for two wavelengths, and for the gradient once more for each (the adjoint problem, which has the same matrix).
"""

import numpy as np
from scipy.linalg import solve_banded

CELLS, SPACING = 160, 0.02  # micrometres
DESIGN = slice(40, 120)
PASSED, BLOCKED = 2 * np.pi / 0.8, 2 * np.pi / 0.6  # wave numbers
GLASS = (1.0, 2.25)


def solve(eps, k):
    """The three diagonals of the matrix, and the field of a source on the left."""
    matrix = np.full((3, CELLS), SPACING**-2, complex)
    matrix[1] = k**2 * eps - 2 / SPACING**2
    matrix[1, [0, -1]] += np.exp(1j * k * SPACING) / SPACING**2
    source = np.zeros(CELLS, complex)
    source[5] = 2j * k / SPACING
    return matrix, solve_banded((1, 1), matrix, source)


def transmission(design, k):
    """How much passes to the right, and its gradient."""
    eps = np.ones(CELLS)
    eps[DESIGN] = design
    matrix, field = solve(eps, k)
    seen = np.zeros(CELLS, complex)
    seen[-5] = field[-5].conj()
    adjoint = solve_banded((1, 1), matrix, seen)  # the matrix is symmetric
    return abs(field[-5]) ** 2, -2 * np.real(adjoint * k**2 * field)[DESIGN]


def fun(design):
    """What is blocked less what is passed, to be minimized, and its gradient."""
    passed, up = transmission(design, PASSED)
    blocked, down = transmission(design, BLOCKED)
    return blocked - passed, down - up


size = DESIGN.stop - DESIGN.start
x0 = np.full(size, np.mean(GLASS)) + 0.05 * np.sin(np.arange(size))
bounds = [GLASS] * size
options = {"lr": 0.02, "maxiter": 400}


def quality(design):
    """Blocked over passed light: smaller is better."""
    return transmission(design, BLOCKED)[0] / transmission(design, PASSED)[0]
