"""ASGD: gradient descent with a falling rate, and the average of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, nonnegative
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


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

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float or callable, default 1e-2
        Learning rate :math:`\alpha`: a number, or a schedule, called with the number of steps taken so far.
    lambd : float, default 1e-4
        Decay term :math:`\lambda_d`.
    alpha : float, default 0.75
        Power :math:`\kappa` with which the rate falls.
    t0 : float, default 1e6
        :math:`t_0`: from the step after it on, the average is one of all points since; before, it is the point itself.
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

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

    checks: ClassVar[Mapping[str, Check]] = {
        **Optimizer.checks,
        "alpha": nonnegative,
        "lambd": nonnegative,
        "t0": nonnegative,
    }
    takes_rates: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return asgd, ("ax",)

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        falling = (1.0 + hyper["lambd"] * hyper["lr"] * (t - 1)) ** -hyper["alpha"]
        mu = 1.0 / max(1.0, t - 1 - hyper["t0"])
        return falling, hyper["lambd"], 1.0, mu, 1.0 - mu
