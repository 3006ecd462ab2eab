"""Adam: averages of the gradient and of its square, both corrected for their start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import OneOf
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import Rule, rule
from fastopt.engine.decisions import decision
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import PER_ROW, normalized, refuse_per_row


@rule
def adam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, eps_root, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * debias * normalized(m, v, eps_root, eps), m, v


@rule
def adam_per_row(theta, g, lr, m, v, mean_square, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, eps_root, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * mean_square
    return theta - normalized(lr * debias, v, eps_root, eps) * m, m, v, g * g


@rule
def amsgrad(theta, g, lr, m, v, v_max, beta1, one_minus_beta1, beta2, one_minus_beta2, debias, eps_root, eps, debias_v):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    v_max = np.maximum(v_max, debias_v * v)
    return theta - lr * debias * normalized(m, v_max, eps_root, eps), m, v, v_max


@decision
def adam_numbers(t, beta1, beta2, eps_root, eps, corrects_bias, eps_hat, corrects_v_max):
    """Adam's coefficients; with `corrects_v_max` the root needs no correction."""
    bias_m = 1.0 - beta1**t if corrects_bias else 1.0
    under_root = 1.0 - beta2**t if corrects_bias and not corrects_v_max else 1.0
    factor = math.sqrt(under_root)
    if not eps_hat:
        eps_root, eps = eps_root * under_root, eps * factor
    return beta1, 1.0 - beta1, beta2, 1.0 - beta2, factor / bias_m, eps_root, eps


@decision
def amsgrad_numbers(t, beta1, beta2, eps_root, eps, corrects_bias, eps_hat, corrects_v_max):
    debias_v = 1.0 / (1.0 - beta2**t) if corrects_bias and corrects_v_max else 1.0
    return (*adam_numbers(t, beta1, beta2, eps_root, eps, corrects_bias, eps_hat, corrects_v_max), debias_v)


class Adam(Optimizer):
    r"""Adam, as Kingma and Ba's Algorithm 1 has it.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, & \hat m &= m / (1 - \beta_1^t) \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g \odot g, & \hat v &= v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / (\sqrt{\hat v + \epsilon_r} + \epsilon)

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or ``eps_hat=True`` comes with ``amsgrad_of="v_hat"``.

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"v"``, that of its square; both start at 0 and are stored
    uncorrected. With `amsgrad`, ``"v_max"``, the largest of them. With `per_row`, ``"v"`` has one number for each row.

    The corrections depend on the step alone, so they are computed once a step in double precision. Quotient and root are
    multiplied by :math:`\sqrt{1 - \beta_2^t}`, which leaves one factor for the rate, and small constants that change with
    the step.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    .. [2] Reddi, Kale, Kumar, "On the convergence of Adam and beyond", ICLR 2018, for AMSGrad.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Adam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    nonnegative_states = ("v", "v_max")
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper((0.9, 0.999))
    eps: float = hyper(1e-8)
    weight_decay: float = hyper(0.0)
    amsgrad: bool = hyper(
        False, doc="Divide by the root of the largest :math:`v` so far, which is then corrected as :math:`v` would be."
    )
    eps_root: float = hyper(0.0, doc=r":math:`\epsilon_r`, inside of the root, as in optax.")
    eps_hat: bool = hyper(
        False,
        doc=r"""Add :math:`\epsilon` to the root of the uncorrected average instead, as Keras does: :math:`\alpha \hat m
        \sqrt{1 - \beta_2^t} / (\sqrt{v + \epsilon_r} + \epsilon)`.""",
    )
    amsgrad_of: str = hyper(
        "v",
        OneOf("v", "v_hat"),
        """With `amsgrad`, keep the largest average and correct it, as PyTorch and Keras do, or the largest corrected
        average, as optax does.""",
    )
    bias_correction: bool = hyper(True, doc=r"Without it :math:`\hat m = m` and :math:`\hat v = v`, as AMSGrad's paper has it.")

    per_row: bool = hyper(False, doc=PER_ROW.format(state=":math:`v`"))

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        refuse_per_row(hyper, "amsgrad")
        if not hyper["amsgrad"]:
            return adam_per_row if hyper["per_row"] else adam, ("m", "v")
        if hyper["eps_hat"] and hyper["amsgrad_of"] == "v_hat":
            raise ValueError("eps_hat=True needs amsgrad_of='v': the largest of the corrected averages has no uncorrected root")
        return amsgrad, ("m", "v", "v_max")

    def states_of_rows(self, hyper: Mapping[str, Any]) -> tuple[str, ...]:
        return ("v",) if hyper["per_row"] else ()

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return amsgrad_numbers if hyper["amsgrad"] else adam_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        flags = (hyper["bias_correction"], hyper["eps_hat"], hyper["amsgrad"] and hyper["amsgrad_of"] == "v_hat")
        return *hyper["betas"], hyper["eps_root"], hyper["eps"], *flags


class AdamW(Adam):
    r"""Adam with decoupled weight decay, as Loshchilov and Hutter have it.

    .. math::

        \theta &\leftarrow \theta - \alpha \lambda \odot \theta \\
        \theta, m, v &\leftarrow \text{a step of Adam}

    Notes
    -----
    The state is that of `Adam`. The decay does not pass through the averages, so it shrinks all weights at the same rate,
    those with large gradients, too.

    References
    ----------
    .. [1] Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2 with a constant multiplier.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdamW(w, lr=0.5, weight_decay=0.1)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.45, 2.4 ])
    """

    decoupled_weight_decay = True
    weight_decay: float = hyper(1e-2, doc=r":math:`\lambda`, times the learning rate, as in PyTorch; 1e-4 in optax.")
