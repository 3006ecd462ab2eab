"""Prodigy: Adam that estimates how far the solution is, and takes its rate from that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, part, rule
from fastopt.engine.decisions import decision, larger
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


@decision
def prodigy_correction(t, beta1, beta2):
    """Adam's corrections of both averages, as a factor of the rate."""
    return math.sqrt(1.0 - beta2**t) / (1.0 - beta1**t)


@decision
def prodigy_weight(t, d, lr, beta1, beta2, d0, safeguard_warmup):
    """What a gradient counts in the sum of gradients, besides the learning rate."""
    weight = d / d0 * d
    if not safeguard_warmup:
        return weight * prodigy_correction(t, beta1, beta2)
    return weight / lr if lr else 0.0


@decision
def prodigy_measure_numbers(t, d, _, lr, beta1, beta2, d0, safeguard_warmup, d_coef, eps, weight_decay):
    before = d0 if t == 1.0 else d
    return 1.0, math.sqrt(beta2), prodigy_weight(t, before, lr, beta1, beta2, d0, safeguard_warmup)


@decision
def prodigy_numbers(t, d, numerator, product, absolute, lr, beta1, beta2, d0, safeguard_warmup, d_coef, eps, weight_decay):
    before = d0 if t == 1.0 else d
    correction, beta3 = prodigy_correction(t, beta1, beta2), math.sqrt(beta2)
    numerator = beta3 * numerator + before / d0 * before * lr * correction * product
    d = before
    if absolute != 0.0:
        d = larger(before, d_coef * numerator / absolute)
    weight = prodigy_weight(t, before, lr, beta1, beta2, d0, safeguard_warmup)
    averages = (beta1, (1.0 - beta1) * before, beta2, (1.0 - beta2) * before * before)
    return (d, numerator, beta3, weight, *averages, before * correction, weight_decay, d * eps)


@rule
def prodigy(theta, g, lr, m, v, s, start, beta3, weight, beta1, from_g, beta2, from_g2, rate, weight_decay, eps):
    s = prodigy_average(g, s, beta3, lr * weight)
    m = beta1 * m + from_g * g
    v = beta2 * v + from_g2 * g * g
    step = m / (np.sqrt(v) + eps) + weight_decay * theta
    return theta - lr * rate * step, m, v, s, start


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
    nonnegative_states = ("v",)
    own_options = frozenset({"weight_decay"})
    scalars: ClassVar[Mapping[str, float]] = {"d": 0.0, "numerator": 0.0}
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

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return prodigy_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        of_distance = (hyper["d0"], hyper["safeguard_warmup"], hyper["d_coef"])
        return hyper["lr"], *hyper["betas"], *of_distance, hyper["eps"], hyper["weight_decay"]

    def decide_measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return prodigy_measure_numbers
