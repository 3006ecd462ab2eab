"""Sophia: momentum over an estimate of the Hessian's diagonal, clipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import part, rule
from fastopt.engine.values import at_least, clipped
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import DECOUPLED
from fastopt.step.groups import Group
from fastopt.step.passes import Pass


@rule
def sophia(theta, g, lr, m, h, least, most, beta1, one_minus_beta1, debias_m, gamma, eps):
    m = beta1 * m + one_minus_beta1 * g
    step = debias_m * m / at_least(gamma * h, eps)
    return theta - lr * clipped(step, least, most), m, h


@part
def averaged(h, estimate, one_minus_beta2, beta2):
    return beta2 * h + one_minus_beta2 * estimate


class Sophia(Optimizer):
    r"""Sophia, as Liu and others have it; the estimates of the Hessian come from the caller.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad \hat m = m / (1 - \beta_1^t) \\
        \theta &\leftarrow \theta - \alpha \lambda \theta - \alpha \operatorname{clip}\Bigl(\frac{\hat
        m}{\max(\gamma h, \epsilon)},
        1\Bigr) \\
        h &\leftarrow \beta_2 h + (1 - \beta_2) \hat h \qquad \text{(by update\_hessian)}

    Notes
    -----
    The state: ``"m"``, the average of the gradient, and ``"h"``, that of the estimates of the Hessian's diagonal; both
    start at 0. Until the first estimate every element steps by `clip` times `lr`.

    Give an estimate every ten steps or so: Hutchinson's, :math:`u \odot (H u)` with random signs :math:`u`, or that of
    Gauss, Newton and Bartlett.

    References
    ----------
    .. [1] Liu, Li, Hall, Liang, Ma, "Sophia: a scalable stochastic second-order optimizer for language model
       pre-training", ICLR
       2024, algorithm 3; the correction of the average is optax's.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.Sophia(w, lr=0.5, gamma=1.0, weight_decay=0.0)
    >>> opt.update_hessian(np.array([1000.0, 100.0]))
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.85, 2.5 ])
    """

    rule, state_names = sophia, ("m", "h")
    decoupled_weight_decay = True
    takes_modulus = False
    lr: Rate = hyper(1e-3)
    betas: tuple[float, float] = hyper(
        (0.965, 0.99),
        doc=r"Decay rates :math:`\beta_1, \beta_2` of the averages of the gradient and of the estimates, in [0, 1).",
    )
    eps: float = hyper(1e-8, doc=r":math:`\epsilon`: the denominator is at least this.")
    weight_decay: float = hyper(1e-4, doc=DECOUPLED)
    gamma: float = hyper(0.01, nonnegative, r":math:`\gamma`: the larger, the fewer elements are clipped.")
    clip: float = hyper(1.0, nonnegative, "Most that an element's step may be before the learning rate.")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, most = hyper["betas"][0], hyper["clip"]
        return -most, most, beta1, 1.0 - beta1, 1.0 / (1.0 - beta1**t), hyper["gamma"], hyper["eps"]

    def update_hessian(self, estimate: Any) -> None:
        """Average an estimate of the Hessian's diagonal into the state ``"h"``.

        Parameters
        ----------
        estimate : ndarray, Flat, or list, tuple or dict of them
            Nested as gradients are; only read.

        Raises
        ------
        TypeError, ValueError
            As `step` does for gradients. Nothing is changed then.
        RuntimeError
            While the parameters are swapped with their averages, or rows have steps to catch up with, which take the average
            as it is.
        """
        self._require_ready()
        self._stepping.apart(self._averaging, self._model.active, "estimate", estimate)

    def _averaging(self, group: Group) -> Pass:
        """What averages an estimate into the state of a group."""
        beta2 = group.current["betas"][1]
        return Pass(averaged, group.parameters, lambda p: [p.states["h"]], 1.0 - beta2, (beta2,))
