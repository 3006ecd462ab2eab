"""LAMB: Adam with a rate for each tensor, from the norms of its weights and its step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, part, rule
from fastopt.engine.decisions import decision
from fastopt.optimizer import Optimizer
from fastopt.optimizers.lars import trust_ratio


@part
def lamb_step(theta, g, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps, weight_decay):
    """Adam's step with decoupled weight decay, before any rate, and Adam's new state."""
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return debias_m * m / (np.sqrt(v) * debias_root_v + eps) + weight_decay * theta, m, v


@part
def lamb_norms(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps, weight_decay):
    step, _, _ = lamb_step(
        theta, g, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps, weight_decay
    )
    return (theta, theta), (step, step)


@rule
def lamb(theta, g, lr, m, v, trust, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps, weight_decay):
    step, m, v = lamb_step(
        theta, g, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_m, debias_root_v, eps, weight_decay
    )
    return theta - lr * trust * step, m, v


@decision
def lamb_step_numbers(t, _, beta1, beta2, eps, weight_decay):
    debias_m, debias_root_v = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
    return beta1, 1.0 - beta1, beta2, 1.0 - beta2, debias_m, debias_root_v, eps, weight_decay


@decision
def lamb_numbers(t, _, weights2, step2, beta1, beta2, eps, weight_decay):
    trust = trust_ratio(weights2, step2, 0.0, 1.0)
    return (trust, trust, *lamb_step_numbers(t, _, beta1, beta2, eps, weight_decay))


class LAMB(Optimizer):
    r"""LAMB, as You and others have it, in optax's form.

    .. math::

        u &= \hat m / (\sqrt{\hat v} + \epsilon) + \lambda\theta \qquad \text{(Adam's step)} \\
        \theta &\leftarrow \theta - \alpha \frac{\lVert\theta\rVert}{\lVert u \rVert} u

    Notes
    -----
    The state: ``"m"`` and ``"v"`` as in `Adam`. For each tensor a running scalar, ``"trust"``: the ratio of the norms,
    which is 1 where one of them is 0.

    A tensor is an array of the parameters, or each array in a `Flat`. The norms are summed up in a pass of their own before
    the step, in double precision, so that it reads parameters, gradients and state twice. A NaN in one of these makes the norm
    NaN, and with it the whole tensor.

    References
    ----------
    .. [1] You and others, "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR 2020, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.LAMB(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.209431, 2.790569])
    """

    rule, state_names = lamb, ("m", "v")
    nonnegative_states = ("v",)
    own_options = frozenset({"weight_decay"})
    per_tensor = True
    scalars: ClassVar[Mapping[str, float]] = {"trust": 1.0}
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-6)
    weight_decay: float = hyper(0.0, doc=r"Weight decay :math:`\lambda`: it is part of the step whose norm is taken.")

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return lamb_norms

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return lamb_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return *hyper["betas"], hyper["eps"], hyper["weight_decay"]

    def decide_measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return lamb_step_numbers
