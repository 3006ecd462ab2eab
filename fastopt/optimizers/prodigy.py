"""Prodigy: Adam that estimates how far the solution is, and takes its rate from that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, part, rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED


@part
def prodigy_average(g, s, beta3, weight):
    """The average of the weighted gradients, whose norm is compared with the way they point to."""
    return beta3 * s + weight * g


@part
def prodigy_measure(theta, g, lr, m, v, s, start, one, beta3, weight):
    s = prodigy_average(g, s, beta3, lr * weight)
    return (g, start - theta), (np.abs(s), one)


@rule
def prodigy(theta, g, lr, m, v, s, start, beta3, weight, beta1, from_g, beta2, from_g2, rate, weight_decay, eps):
    s = prodigy_average(g, s, beta3, lr * weight)
    m = beta1 * m + from_g * g
    v = beta2 * v + from_g2 * g * g
    step = m / (np.sqrt(v) + eps) + weight_decay * theta
    return theta - lr * rate * step, m, v, s, start


def _distance(hyper: Mapping[str, Any], t: int) -> float:
    """The estimate of the distance before step t."""
    return float(hyper["d0"] if t == 1 else hyper["d"])


def _correction(hyper: Mapping[str, Any], t: int) -> float:
    """Adam's corrections of both averages, as a factor of the rate."""
    beta1, beta2 = hyper["betas"]
    return math.sqrt(1.0 - beta2**t) / float(1.0 - beta1**t)


def _averaging(hyper: Mapping[str, Any], t: int, d: float) -> tuple[float, float]:
    """How the sum of gradients decays, and the weight of the gradient in it, besides the learning rate."""
    weight = d / hyper["d0"] * d
    return math.sqrt(hyper["betas"][1]), weight / hyper["lr"] if hyper["safeguard_warmup"] else weight * _correction(hyper, t)


class Prodigy(Optimizer):
    r"""Prodigy, as Mishchenko and Defazio have it, in optax's form.

    .. math::

        \gamma_t &= d_t\, \alpha \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}, \qquad
        \rho \leftarrow \beta_3 \rho + \frac{d_t \gamma_t}{d_0} \langle g, \theta_0 - \theta \rangle, \qquad
        s \leftarrow \beta_3 s + \frac{d_t \gamma_t}{d_0} g \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) d_t\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) d_t^2\, g \odot g \\
        d_{t+1} &= \max\Bigl(d_t, c \frac{\rho}{\lVert s \rVert_1}\Bigr), \qquad
        \theta \leftarrow \theta - \gamma_t \Bigl(\frac{m}{\sqrt v + d_{t+1} \epsilon} + \lambda\theta\Bigr)

    Notes
    -----
    The state: ``"m"``, ``"v"`` and ``"s"``, which start at 0, and ``"start"``, the parameter at construction. Running
    scalars, for all parameters together: ``"d"``, the estimate of the distance, and ``"numerator"``, :math:`\rho`.

    The sums are over all parameters of all groups, and are made in a pass of their own before the step. A NaN in a parameter, a
    gradient or ``"s"`` makes the estimate NaN for good, and with it all parameters. `lr` can't be an array.

    References
    ----------
    .. [1] Mishchenko, Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024, algorithm 4.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([10.0, -5.0])
    >>> opt = fastopt.Prodigy(w)
    >>> for _ in range(300):
    ...     opt.step(2 * w)
    >>> bool(np.all(abs(w) < 0.1)), opt.param_groups[0].scalars["d"] > 1e-3
    (True, True)
    """

    rule, state_names = prodigy, ("m", "v", "s", "start")
    own_options = frozenset({"weight_decay"})
    scalars: ClassVar[Mapping[str, float]] = {"d": 0.0, "before": 0.0, "numerator": 0.0}
    takes_rates = False
    lr: Rate = hyper(1.0, doc=r":math:`\alpha`, best left at 1")
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-8, doc=r":math:`\epsilon`, outside of the root.")
    weight_decay: float = hyper(0.0, doc=DECOUPLED)
    d0: float = hyper(1e-6, nonnegative, ":math:`d_0`, the first estimate of the distance.")
    d_coef: float = hyper(1.0, nonnegative, ":math:`c`: the larger, the larger the rates.")
    safeguard_warmup: bool = hyper(
        False, doc=r"Leave :math:`\gamma_t` out of the sum :math:`s` in favour of :math:`d_t`, for long warm-ups."
    )

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return theta if name == "start" else 0.0

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return prodigy_measure

    def measure_coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        return 1.0, *_averaging(hyper, t, _distance(hyper, t))

    def advance(self, hyper: Mapping[str, Any], t: int, sums: Sequence[Any]) -> Mapping[str, Any]:
        product, absolute = sums
        before = _distance(hyper, t)
        beta3, _ = _averaging(hyper, t, before)
        weight = before / hyper["d0"] * before * hyper["lr"] * _correction(hyper, t)
        numerator = beta3 * hyper["numerator"] + weight * product
        now = np.maximum(before, hyper["d_coef"] * numerator / absolute) if absolute != 0 else before
        return {"d": now, "before": before, "numerator": numerator}

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        (beta1, beta2), d = hyper["betas"], hyper["before"]
        averages = (beta1, (1.0 - beta1) * d, beta2, (1.0 - beta2) * d * d)
        rate = d * _correction(hyper, t)
        return *_averaging(hyper, t, d), *averages, rate, hyper["weight_decay"], hyper["d"] * hyper["eps"]
