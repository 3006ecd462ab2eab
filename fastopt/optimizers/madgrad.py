"""MADGRAD: dual averaging with momentum, and a cube root in place of the square root."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decay
from fastopt.description.options import Rate
from fastopt.engine.compile import part, rule
from fastopt.optimizer import Optimizer

# The smallest normal number of single precision: nothing beside a cube, but it keeps 0 / 0 away.
TINY = 2.0**-126


@part
def halley(root, x, two, tiny):
    """One step of Halley's iteration for the cube root of x, which triples the number of digits."""
    cube = root * root * root
    return root * (cube + two * x) / (two * cube + x + tiny)


@part
def cube_root(x, two, tiny):
    """The cube root of numbers from 1e-38 to 1e38, correct to 12 digits, of +, *, / and square roots, which run in vectors."""
    fourth = np.sqrt(np.sqrt(x))
    sixteenth = np.sqrt(np.sqrt(fourth))
    # The power 1/4 + 1/16 + 1/64 is close to 1/3.
    root = fourth * sixteenth * np.sqrt(np.sqrt(sixteenth))
    return halley(halley(halley(root, x, two, tiny), x, two, tiny), x, two, tiny)


@rule
def madgrad(theta, g, lr, s, r, start, root_t, momentum, one_minus_momentum, eps, two, tiny):
    weight = (lr + eps) * root_t
    s = s + weight * g
    r = r + weight * g * g
    z = start - s / (cube_root(r, two, tiny) + eps)
    return momentum * theta + one_minus_momentum * z, s, r, start


class MADGRAD(Optimizer):
    r"""MADGRAD, as Defazio and Jelassi have it.

    .. math::

        \lambda_t &= (\alpha + \epsilon) \sqrt t, \qquad s \leftarrow s + \lambda_t g,
        \qquad r \leftarrow r + \lambda_t g \odot g \\
        z &= \theta_0 - s / (\sqrt[3]{r} + \epsilon), \qquad \theta \leftarrow \mu \theta + (1 - \mu) z

    Notes
    -----
    The state: ``"s"`` and ``"r"``, the weighted sums of the gradients and of their squares, which start at 0, and
    ``"start"``, the parameter at construction.

    The cube root is computed by square roots and three steps of Halley's iteration, because a library's would not run in
    vector registers; it is correct to 12 digits for sums between 1e-38 and 1e38.

    References
    ----------
    .. [1] Defazio, Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient method for
       stochastic optimization", JMLR 23, 2022, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.MADGRAD(w, lr=0.5, momentum=0.0, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.09144, 3.     ])
    """

    rule, state_names = madgrad, ("s", "r", "start")
    nonnegative_states, copies_of_theta = ("r",), ("s",)
    lr: Rate = hyper(1e-2)
    momentum: float = hyper(0.9, decay, r":math:`\mu`, in [0, 1).")
    weight_decay: float = hyper(0.0)
    eps: float = hyper(1e-6, doc=r":math:`\epsilon`, added to the cube root, and to the rate, as in the authors' code.")

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return theta if name == "start" else 0.0

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        momentum = hyper["momentum"]
        return math.sqrt(t), momentum, 1.0 - momentum, hyper["eps"], 2.0, TINY
