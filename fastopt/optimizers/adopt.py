"""ADOPT: Adam that divides by the average of earlier squares only, before it averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.hyperparameters import Check, boolean
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@rule
def adopt(theta, g, lr, m, v, zero, least, most, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    normed = g / np.maximum(np.sqrt(v), eps)
    # Of two zeros of both signs, either may be the larger one.
    m = beta1 * m + one_minus_beta1 * (np.minimum(np.maximum(normed, least), most) + zero)
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * m, m, v


class ADOPT(Optimizer):
    r"""ADOPT, as Taniguchi and others have it, with clipping.

    .. math::

        v_1 &= g_1 \odot g_1, \qquad \theta_1 = \theta_0 && (t = 1) \\
        m &\leftarrow \beta_1 m
        + (1 - \beta_1)\, \operatorname{clip}\Bigl(\frac{g}{\max(\sqrt v, \epsilon)}, (t - 1)^{1/4}\Bigr)
        && (t > 1) \\
        \theta &\leftarrow \theta - \alpha \odot m, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g \odot g

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 1e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.9999)
        Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1).
    eps : float, default 1e-6
        :math:`\epsilon`: the root counts as at least this.
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    clip : bool, default True
        Whether to clip, as the authors recommend.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"m"``, the average of the normed gradients, and ``"v"``, that of the squared gradients; both start at 0.
    The first step only sets ``"v"``.

    References
    ----------
    .. [1] Taniguchi and others, "ADOPT: modified Adam can converge with any beta2 with the optimal rate", NeurIPS 2024,
       algorithm 2, with the clipping of its later version.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.ADOPT(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w
    array([1., 2.])
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.95, 2.05])
    """

    checks: ClassVar[Mapping[str, Check]] = {**Optimizer.checks, "clip": boolean}

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        clip: bool = True,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "clip": clip}
        super().__init__(params, options=options, **hyper)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return adopt, ("m", "v")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        if t == 1:
            return 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, hyper["eps"]
        beta1, beta2 = hyper["betas"]
        most = (t - 1.0) ** 0.25 if hyper["clip"] else math.inf
        return 0.0, -most, most, beta1, 1.0 - beta1, beta2, 1.0 - beta2, hyper["eps"]
