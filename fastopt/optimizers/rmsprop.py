"""RMSProp, which divides by the root of the mean squared gradient; and the form that averages the rates themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import part, rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import (
    ACCUMULATE,
    PER_ROW,
    eps_places,
    normalized,
    rate_places,
    refuse_per_row,
    refuse_root_of_rates,
    split_rate,
)


@rule
def rmsprop(theta, g, lr, v, rho, one_minus_rho, eps_root, eps):
    v = rho * v + one_minus_rho * g * g
    return theta - lr * normalized(g, v, eps_root, eps), v


@rule
def rmsprop_per_row(theta, g, lr, v, mean_square, rho, one_minus_rho, eps_root, eps):
    v = rho * v + one_minus_rho * mean_square
    return theta - normalized(lr, v, eps_root, eps) * g, v, g * g


@rule
def rmsprop_momentum(theta, g, lr, v, b, rho, one_minus_rho, eps_root, eps, beta, within, without):
    v = rho * v + one_minus_rho * g * g
    inner, outer = split_rate(lr, within, without)
    b = beta * b + inner * normalized(g, v, eps_root, eps)
    return theta - outer * b, v, b


@part
def variance(v, m):
    # The mean square is the larger one, but for rounding.
    return np.abs(v - m * m)


@rule
def centered_rmsprop(theta, g, lr, v, m, rho, one_minus_rho, eps_root, eps):
    v = rho * v + one_minus_rho * g * g
    m = rho * m + one_minus_rho * g
    return theta - lr * normalized(g, variance(v, m), eps_root, eps), v, m


@rule
def centered_rmsprop_momentum(theta, g, lr, v, m, b, rho, one_minus_rho, eps_root, eps, beta, within, without):
    v = rho * v + one_minus_rho * g * g
    m = rho * m + one_minus_rho * g
    inner, outer = split_rate(lr, within, without)
    b = beta * b + inner * normalized(g, variance(v, m), eps_root, eps)
    return theta - outer * b, v, m, b


@rule
def rmsprop_rates(theta, g, lr, alpha, rho, one_minus_rho, eps):
    alpha = rho * alpha + one_minus_rho * lr / (eps + np.abs(g))
    return theta - alpha * g, alpha


# By whether it is centered, and whether there is momentum.
SQUARES: Mapping[tuple[bool, bool], Choice] = {
    (False, False): (rmsprop, ("v",)),
    (False, True): (rmsprop_momentum, ("v", "b")),
    (True, False): (centered_rmsprop, ("v", "m")),
    (True, True): (centered_rmsprop_momentum, ("v", "m", "b")),
}


class RMSProp(Optimizer):
    r"""RMSProp: each element's rate follows the root mean square of its recent gradients.

    .. math::

        v &\leftarrow \rho v + (1 - \rho) g \odot g, \qquad \theta \leftarrow \theta - \frac{\alpha}{\epsilon + \sqrt v} \odot g
        && \text{(accumulate = "squares")} \\
        a &\leftarrow \rho a + (1 - \rho) \frac{\alpha}{\epsilon + |g|}, \qquad \theta \leftarrow \theta - a \odot g
        && \text{(accumulate = "rates")}

    With `momentum` :math:`\beta`, and :math:`u` for what is multiplied by :math:`\alpha` above,

    .. math::

        b &\leftarrow \beta b + u, \qquad \theta \leftarrow \theta - \alpha \odot b \\
        b &\leftarrow \beta b + \alpha \odot u, \qquad \theta \leftarrow \theta - b && \text{(accumulate\_lr)}

    With ``centered=True`` the variance :math:`v - m \odot m` takes the place of :math:`v` under the root, with
    :math:`m \leftarrow \rho m + (1 - \rho) g`; with ``eps_inside_sqrt=True`` it divides by :math:`\sqrt{v + \epsilon}`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or `momentum`, `centered` or `eps_inside_sqrt` comes with ``accumulate="rates"``.

    Notes
    -----
    The state: ``"v"``, the average of the squared gradients, or ``"alpha"``, that of the rates; with
    `centered`, ``"m"``, the average of the gradients; with `momentum`, ``"b"``. All start at 0. With `per_row`, ``"v"`` has one
    number for each row.

    Neither form corrects the bias of its average. With ``"squares"`` the first steps are therefore large, by
    :math:`1/\sqrt{1 - \rho}`; with ``"rates"`` they are small, by :math:`1 - \rho`.

    References
    ----------
    .. [1] Hinton, "Neural networks for machine learning", lecture 6e, 2012.
    .. [2] Graves, "Generating sequences with recurrent neural networks", 2013, equations 38 to 41, for the centered form.
    .. [3] Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 8.5.2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.RMSProp(w, lr=0.5, rho=0.75, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([0., 3.])
    """

    nonnegative_states = ("v", "alpha")
    lr: Rate = hyper(1e-2, doc=r"Global learning rate :math:`\alpha`")
    rho: float = hyper(0.99)
    eps: float = hyper(1e-8, doc=r":math:`\epsilon`, by default outside of the root.")
    accumulate: InitVar[str] = hyper(
        "squares",
        ACCUMULATE,
        "What is averaged over the steps: the squared gradients, as Hinton's lecture has it, or the rates.",
    )
    weight_decay: float = hyper(0.0)
    momentum: float = hyper(0.0)
    centered: bool = hyper(False, doc="Divide by the root of the variance of the gradients instead of their mean square.")
    eps_inside_sqrt: bool = hyper(False, doc=r"Add :math:`\epsilon` under the root, as Keras and optax do.")
    accumulate_lr: bool = hyper(
        False, doc="Let the momentum hold steps, rates included, as in Keras and optax, instead of normalized gradients."
    )

    per_row: InitVar[bool] = hyper(False, doc=PER_ROW.format(state=":math:`v`"))

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        has_momentum, centered = bool(hyper["momentum"]), hyper["centered"]
        refuse_per_row(hyper, "accumulate", "momentum", "centered")
        if hyper["per_row"]:
            return rmsprop_per_row, ("v",)
        if hyper["accumulate"] == "squares":
            return SQUARES[centered, has_momentum]
        refuse_root_of_rates(hyper)
        if has_momentum or centered:
            raise ValueError(
                f"momentum and centered need accumulate='squares', got momentum={hyper['momentum']!r}, centered={centered}"
            )
        return rmsprop_rates, ("alpha",)

    def states_of_rows(self, hyper: Mapping[str, Any]) -> tuple[str, ...]:
        return ("v",) if hyper["per_row"] else ()

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return True

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        rho, beta = hyper["rho"], hyper["momentum"]
        if hyper["accumulate"] == "rates":
            return rho, 1.0 - rho, hyper["eps"]
        averaging = (rho, 1.0 - rho, *eps_places(hyper["eps"], hyper["eps_inside_sqrt"]))
        return (*averaging, beta, *rate_places(hyper["accumulate_lr"])) if beta else averaging
