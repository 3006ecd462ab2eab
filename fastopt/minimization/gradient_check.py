"""Whether a gradient is right, by the rate of Taylor's remainder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import parts
from fastopt.description.hyperparameters import integer
from fastopt.minimization.objective import Objective
from fastopt.minimization.pictures import axes_of, labelled
from fastopt.minimization.points import start_of

Verdict = Literal["right", "wrong", "lost in noise"]

HALVINGS = 40
# The remainder of a right gradient falls with the square of the step, that of a wrong one with the step.
RIGHT, WRONG = 1.75, 1.25
POINTS = 4  # steps in a row over which a rate is taken
MARGIN = 30.0  # times the noise of values, above which a remainder says something
NEIGHBOURS = 5  # points next to this one, of which the noise is taken
EXACT = 1e-3  # of the change itself: functions that are linear along a direction leave no remainder


@dataclass
class GradientCheck:
    """What a check of a gradient has found: it is true, if the gradient is right.

    Parameters
    ----------
    verdict : {"right", "wrong", "lost in noise"}
        The worst of all directions, and lost in noise if one of them is, and none is wrong.
    rates : ndarray of float64, shape (directions,)
        By which power of the step the remainder falls: about 2 where the gradient is right, about 1 where it is wrong, NaN
        where noise leaves too few steps to tell; infinite where there is no remainder.
    steps, remainders : ndarray of float64, shape (directions, 40)
        The lengths of the steps, and what is left of the change of the objective after that by the gradient.
    noise : float
        By how much values differ at points next to this one, at least their rounding.
    """

    verdict: Verdict
    rates: NDArray[np.float64]
    steps: NDArray[np.float64] = field(repr=False)
    remainders: NDArray[np.float64] = field(repr=False)
    noise: float

    def __bool__(self) -> bool:
        return self.verdict == "right"

    def plot(self, ax: Any = None) -> Any:
        """Draw the remainders over the steps, with both rates and the noise.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes
        """
        ax = axes_of(ax)
        for steps, remainders, rate in zip(self.steps, self.remainders, self.rates, strict=True):
            ax.loglog(steps, remainders, ".-", label=f"rate {rate:.2f}")
        h = self.steps[0]
        with np.errstate(all="ignore"):
            top = float(np.nanmax(self.remainders[:, 0]))
            for power, style in ((1, ":"), (2, "--")):
                ax.loglog(h, top * (h / h[0]) ** power, "k" + style, label=f"power {power}")
        ax.axhline(max(self.noise, np.finfo(float).tiny), color="gray", label="noise")
        ax.set_title(f"the gradient is {self.verdict}")
        return labelled(ax, "step", "remainder")


def check_gradient(
    fun: Callable[..., Any], x: Any, args: tuple[Any, ...] = (), jac: Any = True, *, directions: int = 3, seed: int = 0
) -> GradientCheck:
    """Check a gradient along random directions, with no step to choose.

    For a step of length h along a direction the objective changes by h times the slope that the gradient gives, up to a
    remainder that falls with the square of h if the gradient is right, and with h itself if it is wrong. Steps are halved until
    rounding hides it, and the rate is taken where it can be seen.

    Parameters
    ----------
    fun : callable
        As `minimize` takes it.
    x : array-like
        Where to check; float32, complex64 and complex128 stay.
    args : tuple, default ()
        More arguments of `fun` and `jac`.
    jac : callable or True, default True
        As `minimize` takes it.
    directions : int, default 3
        How many directions, each of all variables at once.
    seed : int, default 0
        Of the random directions.

    Returns
    -------
    GradientCheck

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or the objective or its gradient is not finite at `x`.

    Examples
    --------
    >>> import fastopt
    >>> from scipy.optimize import rosen, rosen_der
    >>> bool(fastopt.check_gradient(rosen, [-1.2, 1.0], jac=rosen_der))
    True
    >>> wrong = lambda x: 1.001 * rosen_der(x)
    >>> fastopt.check_gradient(rosen, [-1.2, 1.0], jac=wrong).verdict
    'wrong'
    """
    start = start_of(x).reshape(-1)
    if not (callable(jac) or jac is True):
        raise TypeError(f"jac must be callable or True: there must be a gradient to check, got {jac!r}")
    objective = Objective(fun, jac, args, None, needs_value=True)
    value, g = objective(start.copy())
    assert value is not None
    if not (math.isfinite(value) and np.all(np.isfinite(g))):
        raise ValueError(f"the objective and its gradient must be finite at x, got {value!r} and {g!r}")
    rng, theta = np.random.default_rng(seed), parts(start)
    noise = _noise(objective, start, value, rng)
    found = [
        _remainders(objective, start, value, g, rng.normal(size=theta.size) * np.maximum(np.abs(theta), 1))
        for _ in range(integer("directions", directions, least=1))
    ]
    steps, remainders, slopes = (np.array(each) for each in zip(*found, strict=True))
    rates = np.array([_rate(h, r, s, noise) for h, r, s in zip(steps, remainders, slopes, strict=True)])
    return GradientCheck(_verdict(rates), rates, steps, remainders, noise)


def _noise(objective: Objective, x: Any, value: float, rng: np.random.Generator) -> float:
    """How much values differ where only the last digits of the variables do: by rounding, within a solver too, or by draws."""
    eps, theta, found = np.finfo(parts(x).dtype).eps, parts(x), abs(value)
    differences = [float(eps * found), float(np.finfo(theta.dtype).tiny)]
    sizes = np.abs(theta)
    sizes[sizes == 0] = sizes.max(initial=0) or 1  # nothing is known of how large a variable is that begins with 0
    for _ in range(NEIGHBOURS):
        point = x.copy()
        parts(point)[...] = theta + 2 * eps * sizes * rng.uniform(-1, 1, theta.size)
        differences.append(abs(objective.value_and_more(point) - value))
    return max(float(difference) for difference in differences if math.isfinite(difference))


def _remainders(objective: Objective, x: Any, value: float, g: Any, direction: Any) -> tuple[Any, Any, Any]:
    """Lengths of steps along a direction, what the gradient leaves of the change, and the change by the gradient."""
    direction = direction / np.linalg.norm(direction)
    length = max(float(np.linalg.norm(parts(x).astype(np.float64))), 1.0)
    steps, remainders, slopes = [], [], []
    for k in range(HALVINGS):
        point = x.copy()
        parts(point)[...] = parts(x) + length * 0.5**k * direction
        moved = parts(point).astype(np.float64) - parts(x)  # as it was rounded
        slope = float(moved @ parts(g).astype(np.float64))
        with np.errstate(all="ignore"):
            at = objective.value_and_more(point)
        steps.append(float(np.linalg.norm(moved)))
        remainders.append(abs(at - value - slope))
        slopes.append(abs(slope))
    return steps, remainders, slopes


def _rate(steps: Any, remainders: Any, slopes: Any, noise: float) -> float:
    """The power of the step by which remainders fall, where they are well above noise; infinite where there are none."""
    with np.errstate(all="ignore"):
        seen = np.isfinite(remainders) & (remainders > MARGIN * noise) & (steps > 0)
        last = int(np.flatnonzero(seen)[-1]) if seen.any() else -1
        clear = np.isfinite(slopes) & (slopes > MARGIN * noise / EXACT)
        if clear.any() and np.all(remainders[clear] <= EXACT * slopes[clear]) and (last < POINTS):
            return math.inf
        if last < POINTS or not seen[last - POINTS : last + 1].all():
            return math.nan
        picked = slice(last - POINTS, last + 1)
        return float(np.polyfit(np.log(steps[picked]), np.log(remainders[picked]), 1)[0])


def _verdict(rates: Any) -> Verdict:
    if np.any(rates < WRONG):
        return "wrong"
    return "right" if np.all(rates > RIGHT) else "lost in noise"
