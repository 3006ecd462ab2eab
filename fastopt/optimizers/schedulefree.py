"""Schedule-free gradient descent and AdamW, which average their points instead of lowering the learning rate."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastopt.arrays import masters
from fastopt.arrays.tree import with_leaves
from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import decay, nonnegative
from fastopt.description.options import Rate
from fastopt.description.recipe import Choice
from fastopt.engine.compile import Rule, rule
from fastopt.engine.decisions import decision
from fastopt.engine.formats import decoded
from fastopt.optimizer import Optimizer
from fastopt.optimizers.conventions import normalized
from fastopt.step.averages import SWAPPED


@rule
def schedule_free_sgd(theta, g, lr, z, share, one_minus_share, along):
    theta = one_minus_share * theta + share * z - lr * along * g
    return theta, z - lr * g


@rule
def schedule_free_adamw(
    theta, g, lr, z, v, share, one_minus_share, along, beta2, one_minus_beta2, debias, zero, eps, weight_decay
):
    v = beta2 * v + one_minus_beta2 * g * g
    update = debias * normalized(g, v, zero, eps) + weight_decay * theta
    theta = one_minus_share * theta + share * z - lr * along * update
    return theta, z - lr * update, v


@decision
def schedule_free_sgd_numbers(t, max_lr, share, weight_sum, lr, r, power, beta):
    max_lr = max(max_lr, lr)
    weight = math.pow(t, r) * math.pow(max_lr, power)
    weight_sum = weight_sum + weight
    # While the rate is 0, nothing has moved that could be averaged.
    share = weight / weight_sum if weight_sum > 0.0 else 0.0
    return max_lr, share, weight_sum, share, 1.0 - share, 1.0 - beta * (1.0 - share)


@decision
def schedule_free_adamw_numbers(t, max_lr, share, weight_sum, lr, r, power, beta1, beta2, eps, weight_decay):
    debias = math.sqrt(1.0 - beta2**t)
    averaging = (beta2, 1.0 - beta2, debias, 0.0, eps * debias, weight_decay)
    return schedule_free_sgd_numbers(t, max_lr, share, weight_sum, lr, r, power, beta1) + averaging


# The weights of steps are finite up to here, whatever their powers.
LAST_STEP = 1e15


def _momentum(name: str, value: Any) -> float:
    number = decay(name, value)
    if number == 0:
        raise ValueError(f"{name} must be above 0, got {value!r}: without it the average could not be told from the parameters")
    return number


def _refuse(hyper: Mapping[str, Any], *options: str) -> None:
    if on := [option for option in (*options, "l1", "bounds", "cautious") if hyper[option]]:
        raise ValueError(f"{on[0]}={hyper[on[0]]!r} is not for schedule-free optimizers: their average would be lost")


POINTS = (
    r"They are the points :math:`\theta` where gradients are taken, between their average :math:`x` and fast ones :math:`z`."
)
STEP_POWER = hyper(0.0, nonnegative, "Power of the step's number in the weights of the average.")
RATE_POWER = hyper(
    2.0, nonnegative, ":math:`p`: power of the largest rate so far in the weights, which counts while rates warm up."
)


class _ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: the average's weights, and where to read it."""

    scalars: ClassVar[Mapping[str, float]] = {"max_lr": 0.0, "share": 0.0, "weight_sum": 0.0}
    takes_rates = False
    lr: Rate = hyper(
        1.0, doc=r"Learning rate :math:`\gamma`, which needs no lowering, but may rise first, see `schedules.Warmup`"
    )

    @classmethod
    def _described(cls, name: str) -> tuple[str, str]:
        kind, doc = super()._described(name)
        return kind, f"{doc} {POINTS}" if name == "params" else doc

    def eval_params(self) -> Any:
        r"""Compute the average :math:`x` of the points, which is what training is after.

        Returns
        -------
        ndarray, Flat, or list, tuple or dict of them
            New arrays, nested as the parameters are (with groups, a list with those of each group).

        Raises
        ------
        RuntimeError
            While the parameters are swapped with their averages, or rows have steps to catch up with, see `catch_up`.
        """
        if self._barred == SWAPPED:
            raise RuntimeError(SWAPPED)
        self._stepping.missed.require_none()
        averages = {}
        for group in self._model.groups:
            beta = self._beta(group.hyper)
            for p in group.parameters:
                z, number = decoded(p.states["z"]), p.dtype.type
                averages[p] = p.view((masters.values(p) - number(1.0 - beta) * z) / number(beta))
        return with_leaves(self._model.structure, [averages[p] for p in self._model.parameters])

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return theta if name == "z" else 0.0

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        r, power, lr = hyper["r"], hyper["weight_lr_power"], hyper["lr"]
        if r * math.log(LAST_STEP) + power * math.log(max(lr, 1.0)) > math.log(sys.float_info.max):
            raise ValueError(f"the weights of steps become too large: r is {r}, and the rate {lr} to the power {power}")
        return lr, r, power, self._beta(hyper)

    def _beta(self, hyper: Mapping[str, Any]) -> float:
        """How close gradients are taken to the average."""
        raise NotImplementedError


class ScheduleFreeSGD(_ScheduleFree):
    r"""Schedule-free gradient descent, as Defazio and others have it.

    .. math::

        z &\leftarrow z - \gamma_t\, g, \qquad x \leftarrow (1 - c_t)\, x + c_t z \\
        \theta &\leftarrow \beta x + (1 - \beta) z, \qquad
        c_t = w_t / \sum_{i \le t} w_i, \qquad w_t = t^r \bigl(\max_{i \le t} \gamma_i\bigr)^p

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or `cautious`, `l1`, `bounds` or `decoupled_weight_decay` is asked for.

    Notes
    -----
    The state: ``"z"``, which starts as the parameter. The average :math:`x` is not stored: `eval_params` computes it from
    the parameters and ``"z"``. Running scalars of each group: the sum of the weights, and the largest rate.

    `momentum` can't change during a run, for the average is computed with it.

    References
    ----------
    .. [1] Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky, "The road less scheduled", NeurIPS 2024, equations 3 to 5.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.ScheduleFreeSGD(w, lr=0.5)
    >>> for _ in range(100):
    ...     opt.step(2 * w)
    >>> bool(np.all(abs(opt.eval_params()) < 0.01))
    True
    """

    momentum: float = hyper(0.9, _momentum, r":math:`\beta`, between 0 and 1.")
    weight_decay: float = hyper(
        0.0, doc=r"Coupled weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`."
    )
    r: float = STEP_POWER
    weight_lr_power: float = RATE_POWER

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        _refuse(hyper, "decoupled_weight_decay")
        return schedule_free_sgd, ("z",)

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return schedule_free_sgd_numbers

    def _beta(self, hyper: Mapping[str, Any]) -> float:
        return float(hyper["momentum"])


class ScheduleFreeAdamW(_ScheduleFree):
    r"""Schedule-free AdamW, as Defazio and others have it.

    .. math::

        v &\leftarrow \beta_2 v + (1 - \beta_2) g \odot g, \qquad \hat v = v / (1 - \beta_2^t) \\
        z &\leftarrow z - \gamma_t \Bigl(\frac{g}{\sqrt{\hat v} + \epsilon} + \lambda\theta\Bigr), \qquad
        x \leftarrow (1 - c_t)\, x + c_t z \\
        \theta &\leftarrow \beta_1 x + (1 - \beta_1) z, \qquad
        c_t = w_t / \sum_{i \le t} w_i, \qquad w_t = t^r \bigl(\max_{i \le t} \gamma_i\bigr)^p

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or `cautious`, `l1` or `bounds` is asked for.

    Notes
    -----
    The state: ``"z"``, which starts as the parameter, and ``"v"``, the average of the squared gradients, which starts at 0.
    The average :math:`x` is not stored: `eval_params` computes it from the parameters and ``"z"``. Running scalars of each
    group: the sum of the weights, and the largest rate.

    The authors' code also lengthens the first `warmup_steps` by a factor of its own; here a schedule does that. :math:`\beta_1`
    can't change during a run, for the average is computed with it.

    References
    ----------
    .. [1] Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky, "The road less scheduled", NeurIPS 2024, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.ScheduleFreeAdamW(w, lr=0.1)
    >>> for _ in range(500):
    ...     opt.step(2 * w)
    >>> bool(np.all(abs(opt.eval_params()) < 0.05))
    True
    """

    own_options = frozenset({"weight_decay"})
    nonnegative_states = ("v",)
    lr: Rate = hyper(2.5e-3)
    betas: tuple[float, float] = hyper(
        (0.9, 0.999),
        doc=r":math:`\beta_1`, above 0, and the decay rate :math:`\beta_2` of the average of the squares, in [0, 1).",
    )
    eps: float = hyper(1e-8)
    weight_decay: float = hyper(0.0, doc=r"Weight decay :math:`\lambda` at the points :math:`\theta`, outside of the averages.")
    r: float = STEP_POWER
    weight_lr_power: float = RATE_POWER

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        _refuse(hyper)
        _momentum("betas[0]", self._beta(hyper))
        return schedule_free_adamw, ("z", "v")

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return schedule_free_adamw_numbers

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return *super().decision_numbers(hyper), hyper["betas"][1], hyper["eps"], hyper["weight_decay"]

    def _beta(self, hyper: Mapping[str, Any]) -> float:
        return float(hyper["betas"][0])
