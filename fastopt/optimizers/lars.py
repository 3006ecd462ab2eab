"""LARS: momentum with a rate for each tensor, from the norms of its weights and its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decay, nonnegative
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import Rule, part, rule
from fastopt.engine.decisions import decision
from fastopt.optimizer import Optimizer


@part
def norms(theta, g, lr, p):
    return (theta, theta), (g, g)


@rule
def lars(theta, g, lr, p, beta, trust):
    p = beta * p + lr * trust * g
    return theta - p, p


@rule
def lars_nesterov(theta, g, lr, p, beta, trust):
    step = lr * trust * g
    p = beta * p + step
    return theta - (step + beta * p), p


@decision
def trust_ratio(weights2, step2, eps, coefficient):
    """The norm of the weights over that of the step, 1 where one of them is 0, NaN where one of them is; from their squares."""
    if weights2 != 0.0 and step2 != 0.0:
        return coefficient * math.sqrt(weights2) / (math.sqrt(step2) + eps)
    return 1.0


@decision
def lars_numbers(t, _, weights2, gradient2, momentum, eps, coefficient):
    trust = trust_ratio(weights2, gradient2, eps, coefficient)
    return trust, momentum, trust


class LARS(Optimizer):
    r"""LARS, layer-wise adaptive rate scaling, in optax's form.

    .. math::

        g &\leftarrow g + \lambda\theta, \qquad \tau = \eta \frac{\lVert\theta\rVert}{\lVert g \rVert + \epsilon} \\
        p &\leftarrow \beta p + \alpha \tau g, \qquad \theta \leftarrow \theta - p

    Notes
    -----
    The state: ``"p"``, the momentum, which has the rates in it; it starts at 0. For each tensor a running scalar,
    ``"trust"``: the ratio :math:`\tau`, which is 1 where one of the norms is 0.

    A tensor is an array of the parameters, or each array in a `Flat`. The norms are summed up in a pass of their own before
    the step, in double precision, so that it reads parameters and gradients twice. A NaN in a tensor or its gradient makes
    the norm NaN, and with it the whole tensor.

    References
    ----------
    .. [1] You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017, algorithm 1. There the norms of the
       gradient and of the decay are added up; here, as in optax, the norm is that of their sum.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.LARS(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.999329, 2.000894])
    """

    per_tensor = True
    scalars: ClassVar[Mapping[str, float]] = {"trust": 1.0}
    lr: Rate = hyper(0.1)
    momentum: float = hyper(0.9, decay, r":math:`\beta`, in [0, 1).")
    weight_decay: float = hyper(0.0)
    trust_coefficient: float = hyper(1e-3, nonnegative, r":math:`\eta`.")
    eps: float = hyper(0.0, doc=r":math:`\epsilon`, added to the norm of the gradient.")
    nesterov: bool = hyper(False, doc=r"Step along :math:`\alpha\tau g + \beta p`.")

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (lars_nesterov if hyper["nesterov"] else lars), ("p",)

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return norms

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return lars_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return hyper["momentum"], hyper["eps"], hyper["trust_coefficient"]
