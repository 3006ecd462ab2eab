"""NovoGrad: momentum over gradients that are divided by a norm for each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from fastopt.description.fields import hyper
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, part, rule
from fastopt.engine.decisions import decision
from fastopt.optimizer import Optimizer


@part
def gradient_norm(theta, g, lr, m):
    return ((g, g),)


@decision
def novograd_numbers(t, v, gradient2, beta1, beta2, eps, weight_decay):
    v = gradient2 if t == 1.0 else beta2 * v + (1.0 - beta2) * gradient2
    root = math.sqrt(v) + eps
    return v, 1.0 if root == 0.0 else 1.0 / root, beta1, weight_decay


@rule
def novograd(theta, g, lr, m, scale, beta1, weight_decay):
    m = beta1 * m + (scale * g + weight_decay * theta)
    return theta - lr * m, m


class NovoGrad(Optimizer):
    r"""NovoGrad, as Ginsburg and others have it.

    .. math::

        v &\leftarrow \beta_2 v + (1 - \beta_2) \lVert g \rVert^2 \quad \text{(one number for each tensor)} \\
        m &\leftarrow \beta_1 m + \Bigl(\frac{g}{\sqrt v + \epsilon} + \lambda\theta\Bigr), \qquad \theta
        \leftarrow \theta - \alpha m

    Notes
    -----
    The state: ``"m"``, the momentum, which starts at 0. For each tensor a running scalar, ``"v"``: the average of the
    squared norm of its gradient, which is that of the first gradient after the first step.

    A tensor is an array of the parameters, or each array in a `Flat`. The norms are summed up in a pass of their own before
    the step, in double precision, so that it reads gradients twice. A NaN in a gradient makes ``"v"`` NaN for good, and with
    it the whole tensor.

    References
    ----------
    .. [1] Ginsburg and others, "Stochastic gradient methods with layer-wise adaptive moments for training of deep
       networks", 2019,
       algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.NovoGrad(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.7, 2.4])
    """

    rule, state_names = novograd, ("m",)
    own_options = frozenset({"weight_decay"})
    per_tensor = True
    scalars: ClassVar[Mapping[str, float]] = {"v": 0.0}
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper(
        (0.9, 0.25), doc=r"Decay rates :math:`\beta_1, \beta_2` of the momentum and of the squared norm, in [0, 1)."
    )
    eps: float = hyper(1e-6, doc=r":math:`\epsilon`, added to the root.")
    weight_decay: float = hyper(0.0, doc=r"Weight decay :math:`\lambda`: it is added to the normalized gradient.")

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return gradient_norm

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return novograd_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return *hyper["betas"], hyper["eps"], hyper["weight_decay"]
