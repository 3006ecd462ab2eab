"""Gradient descent: plain, with a rate for every element, with momentum, with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import finite
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import rate_places, split_rate


@rule
def gradient_descent(theta, g, lr):
    return theta - lr * g


@rule
def momentum(theta, g, lr, p, beta, undamped, within, without):
    inner, outer = split_rate(lr, within, without)
    p = beta * p + undamped * inner * g
    return theta - outer * p, p


@rule
def nesterov(theta, g, lr, p, beta, undamped, within, without):
    inner, outer = split_rate(lr, within, without)
    p = beta * p + undamped * inner * g
    return theta - outer * (inner * g + beta * p), p


class SGD(Optimizer):
    r"""Gradient descent, with momentum if asked for.

    .. math::

        \theta &\leftarrow \theta - \alpha \odot g && \text{(momentum = 0)} \\
        p &\leftarrow \beta p + (1 - \tau) g, \qquad \theta \leftarrow \theta - \alpha \odot p && \text{(momentum = } \beta) \\
        p &\leftarrow \beta p + (1 - \tau) g, \qquad \theta \leftarrow \theta - \alpha \odot (g + \beta p) && \text{(nesterov)}

    With ``accumulate_lr=True``, :math:`\alpha \odot g` takes the place of :math:`g` in the last two, and 1 that of
    :math:`\alpha`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or `nesterov` comes without momentum or with dampening.

    Notes
    -----
    The state: ``"p"``, the momentum, if there is any; it starts at 0.

    By default the learning rate enters where the momentum is applied, as in PyTorch: after a change of `lr` the whole
    momentum moves at the new rate.

    References
    ----------
    .. [1] Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    .. [2] Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
       ICML 2013, for Nesterov's form.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.SGD(w, lr=np.array([0.5, 0.25]))
    >>> opt.step(np.array([1.0, 1.0]))
    >>> w
    array([0.5 , 1.75])
    """

    lr: Rate = hyper(1e-3)
    momentum: float = hyper(0.0, doc=r":math:`\beta`, at least 0. At 0 there is no state.")
    dampening: float = hyper(0.0, finite, r":math:`\tau`. The first step is not damped, as in PyTorch.")
    nesterov: bool = hyper(False, doc=r"Step along :math:`g + \beta p`. It needs momentum and no dampening.")
    weight_decay: float = hyper(0.0)
    accumulate_lr: bool = hyper(
        False,
        doc="""Let the momentum hold steps, rates included, as in Keras, instead of gradients: after a change of `lr` it
        carries on at the old rate.""",
    )

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        if hyper["nesterov"]:
            if hyper["momentum"] == 0 or hyper["dampening"] != 0:
                raise ValueError(
                    f"nesterov needs momentum > 0 and dampening = 0, got momentum={hyper['momentum']}, "
                    f"dampening={hyper['dampening']}"
                )
            return nesterov, ("p",)
        return (momentum, ("p",)) if hyper["momentum"] else (gradient_descent, ())

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        return t > 1 or hyper["dampening"] == 0

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta = hyper["momentum"]
        if beta == 0:
            return ()
        return beta, 1.0 if t == 1 else 1.0 - hyper["dampening"], *rate_places(hyper["accumulate_lr"])
