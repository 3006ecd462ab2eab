"""AdaGrad, which divides by the root of all squared gradients; and the form that sums up the rates themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import ACCUMULATE, PER_ROW, eps_places, normalized, refuse_per_row, refuse_root_of_rates


@rule
def adagrad(theta, g, lr, r, falling, eps_root, eps):
    r = r + g * g
    return theta - falling * lr * normalized(g, r, eps_root, eps), r


@rule
def adagrad_per_row(theta, g, lr, r, mean_square, falling, eps_root, eps):
    r = r + mean_square
    return theta - normalized(falling * lr, r, eps_root, eps) * g, r, g * g


@rule
def adagrad_rates(theta, g, lr, alpha, falling, eps):
    alpha = alpha + falling * lr / (eps + np.abs(g))
    return theta - alpha * g, alpha


class AdaGrad(Optimizer):
    r"""AdaGrad: each element's rate falls with the gradients it has seen.

    .. math::

        r &\leftarrow r + g \odot g, \qquad \theta \leftarrow \theta - \frac{\alpha}{\epsilon + \sqrt r} \odot g
        && \text{(accumulate = "squares")} \\
        a &\leftarrow a + \frac{\alpha}{\epsilon + |g|}, \qquad \theta \leftarrow \theta - a \odot g
        && \text{(accumulate = "rates")}

    With `lr_decay` :math:`\delta`, step :math:`t = 1, 2, \ldots` takes :math:`\alpha / (1 + (t - 1) \delta)` as
    :math:`\alpha`; with ``eps_inside_sqrt=True`` it divides by :math:`\sqrt{r + \epsilon}`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or `eps_inside_sqrt` comes with ``accumulate="rates"``.

    Notes
    -----
    The state: ``"r"``, the sum of the squared gradients, or ``"alpha"``, the sum of the rates; both start at
    `initial_accumulator_value`. With `per_row`, ``"r"`` has one number for each row, a sum of means.

    The two forms differ in kind: with ``"squares"`` rates fall over time, with ``"rates"`` they grow. There, a gradient of
    zero adds :math:`\alpha/\epsilon` to its element's rate for good, so one zero can make all later steps of that element huge.

    References
    ----------
    .. [1] Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
       JMLR 12, 2011.
    .. [2] Gupta, Bengio, Koren, Mazumder et al., "Training highly multiclass classifiers", JMLR 15, 2014, for one number a row.
    .. [3] Goodfellow, Bengio, Courville, "Deep Learning", 2016, algorithm 8.4.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaGrad(w, lr=0.5, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([0.5, 2.5])
    """

    nonnegative_states = ("r", "alpha")
    lr: Rate = hyper(1e-2, doc=r"Global learning rate :math:`\alpha`")
    eps: float = hyper(
        1e-10, doc=r""":math:`\epsilon`, by default outside of the root. With ``accumulate="rates"`` take more, 1e-7 to 1e-5."""
    )
    accumulate: InitVar[str] = hyper(
        "squares",
        ACCUMULATE,
        "What is summed up over the steps: the squared gradients, as Duchi et al. published it, or the rates.",
    )
    weight_decay: float = hyper(0.0)
    lr_decay: float = hyper(0.0, doc=r":math:`\delta`: how fast the global rate falls, as in PyTorch.")
    initial_accumulator_value: float = hyper(0.0, doc="Where the sum starts; 0.1 in Keras and optax.")
    eps_inside_sqrt: bool = hyper(
        False, doc=r"""Add :math:`\epsilon` under the root, as Keras and optax do. Only with ``accumulate="squares"``."""
    )

    per_row: InitVar[bool] = hyper(False, doc=PER_ROW.format(state=":math:`r`"))

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        refuse_per_row(hyper, "accumulate")
        if hyper["accumulate"] == "squares":
            return adagrad_per_row if hyper["per_row"] else adagrad, ("r",)
        refuse_root_of_rates(hyper)
        return adagrad_rates, ("alpha",)

    def states_of_rows(self, hyper: Mapping[str, Any]) -> tuple[str, ...]:
        return ("r",) if hyper["per_row"] else ()

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return hyper["initial_accumulator_value"]

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return not hyper["lr_decay"]

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        falling = 1.0 / (1.0 + (t - 1) * hyper["lr_decay"])
        if hyper["accumulate"] == "rates":
            return falling, hyper["eps"]
        return falling, *eps_places(hyper["eps"], hyper["eps_inside_sqrt"])
