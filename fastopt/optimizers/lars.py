"""LARS: momentum with a rate for each tensor, from the norms of its weights and its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastopt.engine.compile import Rule, part, rule
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, decay, nonnegative
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


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


def trust_ratio(of_weights: NDArray[Any], of_step: NDArray[Any], eps: float, coefficient: float) -> NDArray[Any]:
    """The norm of the weights over that of the step, 1 where one of them is 0."""
    used = (of_weights > 0) & (of_step > 0)
    ratio: NDArray[Any] = np.where(used, coefficient * of_weights / np.where(used, of_step + eps, 1.0), 1.0)
    return ratio


class LARS(Optimizer):
    r"""LARS, layer-wise adaptive rate scaling, in optax's form.

    .. math::

        g &\leftarrow g + \lambda\theta, \qquad \tau = \eta \frac{\lVert\theta\rVert}{\lVert g \rVert + \epsilon} \\
        p &\leftarrow \beta p + \alpha \tau g, \qquad \theta \leftarrow \theta - p

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 0.1
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    momentum : float, default 0.9
        :math:`\beta`, in [0, 1).
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    trust_coefficient : float, default 1e-3
        :math:`\eta`.
    eps : float, default 0.0
        :math:`\epsilon`, added to the norm of the gradient.
    nesterov : bool, default False
        Step along :math:`\alpha\tau g + \beta p`.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"p"``, the momentum, which has the rates in it; it starts at 0. For each tensor a running scalar,
    ``"trust"``: the ratio :math:`\tau`, which is 1 where one of the norms is 0.

    A tensor is an array of the parameters, or each array in a `Flat`. The norms are summed up in a pass of their own before
    the step, in double precision, so that it reads parameters and gradients twice.

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

    checks: ClassVar[Mapping[str, Check]] = {**Optimizer.checks, "momentum": decay, "trust_coefficient": nonnegative}
    per_tensor: ClassVar[bool] = True
    scalars: ClassVar[Mapping[str, float]] = {"trust": 1.0}

    def __init__(
        self,
        params: Any,
        lr: Any = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        hyper = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "nesterov": nesterov,
        }
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return (lars_nesterov if hyper["nesterov"] else lars), ("p",)

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return norms

    def advance(self, hyper: Mapping[str, Any], t: int, sums: Sequence[Any]) -> Mapping[str, Any]:
        return {"trust": trust_ratio(np.sqrt(sums[0]), np.sqrt(sums[1]), hyper["eps"], hyper["trust_coefficient"])}

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[Any, ...]:
        return hyper["momentum"], hyper["trust"]
