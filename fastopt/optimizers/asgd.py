"""ASGD: gradient descent with a falling rate, and the average of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer


@rule
def asgd(theta, g, lr, ax, falling, lambd, one, mu, one_minus_mu):
    eta = falling * lr
    theta = theta * (one - lambd * eta) - eta * g
    ax = one_minus_mu * ax + mu * theta
    return theta, ax


class ASGD(Optimizer):
    r"""Averaged stochastic gradient descent, in PyTorch's form.

    .. math::

        \eta_t &= \alpha / (1 + \lambda_d \alpha (t - 1))^{\kappa}, \qquad \mu_t = 1 / \max(1, t - 1 - t_0) \\
        \theta &\leftarrow (1 - \lambda_d \eta_t)\, \theta - \eta_t\, g \\
        \bar\theta &\leftarrow \bar\theta + \mu_t (\theta - \bar\theta)

    Notes
    -----
    The state: ``"ax"``, the average :math:`\bar\theta`; it starts at 0 and is the parameter itself up to step :math:`t_0 +
    2`.

    The rate falls by a power of the number of steps and of `lr` itself, so `lr` can't be an array. After a change of `lr`,
    PyTorch takes one more step at the old rate; here the new one holds at once.

    References
    ----------
    .. [1] Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    .. [2] Bottou, "Stochastic gradient descent tricks", 2012, section 5.3, for the rate.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.ASGD(w, lr=0.5, lambd=0.0)
    >>> opt.step(np.array([1.0, -2.0]))
    >>> w
    array([0.5, 3. ])
    """

    rule, state_names = asgd, ("ax",)
    copies_of_theta = ("ax",)
    takes_rates = False
    lr: Rate = hyper(1e-2)
    lambd: float = hyper(1e-4, nonnegative, r"Decay term :math:`\lambda_d`.")
    alpha: float = hyper(0.75, nonnegative, r"Power :math:`\kappa` with which the rate falls.")
    t0: float = hyper(
        1e6,
        nonnegative,
        """:math:`t_0`: from the step after it on, the average is one of all points since; before, it is the point
        itself.""",
    )
    weight_decay: float = hyper(0.0)

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        falling = (1.0 + hyper["lambd"] * hyper["lr"] * (t - 1)) ** -hyper["alpha"]
        mu = 1.0 / max(1.0, t - 1 - hyper["t0"])
        return falling, hyper["lambd"], 1.0, mu, 1.0 - mu
