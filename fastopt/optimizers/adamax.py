"""AdaMax: Adam with the largest gradient, fading, in the place of the mean square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt.engine.compile import rule
from fastopt.groups import Choice
from fastopt.optimizer import Optimizer
from fastopt.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@rule
def adamax(theta, g, lr, m, u, beta1, one_minus_beta1, beta2, debias_m, eps_within, eps):
    m = beta1 * m + one_minus_beta1 * g
    u = np.maximum(beta2 * u, np.abs(g) + eps_within)
    return theta - lr * debias_m * m / (u + eps), m, u


class AdaMax(Optimizer):
    r"""AdaMax, as Kingma and Ba's Algorithm 2 has it, with PyTorch's small constant.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad \hat m = m / (1 - \beta_1^t) \\
        u &\leftarrow \max(\beta_2 u, |g| + \epsilon) \\
        \theta &\leftarrow \theta - \alpha \odot \hat m / u

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        float32 or float64; updated in place.
    lr : float, array or callable, default 2e-3
        Learning rate :math:`\alpha`: a number; an array in the parameter's shape, nested as the parameters are; or a
        schedule, called with the number of steps taken so far.
    betas : pair of float, default (0.9, 0.999)
        Decay rates :math:`\beta_1, \beta_2` of the average and of the maximum, in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon`, by default added to each gradient's absolute value before the maximum is taken.
    weight_decay : float, default 0
        Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`.
    eps_in_denominator : bool, default False
        Add :math:`\epsilon` to the maximum instead, where it divides, as Keras does.
    **options
        What every optimizer takes besides, see `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Notes
    -----
    The state: ``"m"``, the average of the gradient, stored uncorrected, and ``"u"``, the fading maximum of its absolute value;
    both start at 0.

    A maximum has no bias towards its start at zero, so :math:`u` is not corrected. The correction of :math:`m` depends on the
    step alone, so it is computed once a step in double precision, and applied to the rate. The paper has no :math:`\epsilon`;
    its place is by default that of PyTorch and optax.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaMax(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.5, 2.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        eps_in_denominator: bool = False,
        **options: Unpack[Options],
    ) -> None:
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options=options, **hyper, eps_in_denominator=eps_in_denominator)

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        return adamax, ("m", "u")

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = hyper["betas"]
        small = (0.0, hyper["eps"]) if hyper["eps_in_denominator"] else (hyper["eps"], 0.0)
        return beta1, 1.0 - beta1, beta2, 1.0 / (1.0 - beta1**t), *small
