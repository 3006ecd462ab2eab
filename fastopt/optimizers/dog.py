"""DoG and DoWG: gradient descent with a rate that follows from the way gone so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastopt.description.fields import hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import Rule, part, rule
from fastopt.engine.decisions import decision, larger
from fastopt.optimizer import Optimizer


@part
def distances(theta, g, lr, start):
    return (theta - start, theta - start), (g, g)


@part
def distances_and_size(theta, g, lr, start):
    return (theta - start, theta - start), (g, g), (start, start)


@decision
def dog_rate(t, distance, squares, moved, square, size, first_distance, is_relative, eps):
    if t == 1.0:
        distance = first_distance * (1.0 + is_relative * math.sqrt(size))
    distance = larger(distance, math.sqrt(moved))
    squares = squares + square
    root = math.sqrt(squares + eps)
    return distance, squares, 0.0 if root == 0.0 else distance / root


@decision
def dowg_rate(t, distance2, squares, moved, square, first_distance, eps):
    if t == 1.0:
        distance2 = first_distance * first_distance
    distance2 = larger(distance2, moved)
    squares = squares + distance2 * square
    root = math.sqrt(squares) + eps
    return distance2, squares, 0.0 if root == 0.0 else distance2 / root


@rule
def descent_from_start(theta, g, lr, start, rate):
    return theta - lr * rate * g, start


class DoG(Optimizer):
    r"""DoG, distance over gradients, as Ivgi, Hinder and Carmon have it.

    .. math::

        \bar r_t &= \max_{i \le t} \lVert\theta_i - \theta_0\rVert, \qquad G_t = \sum_{i \le t} \lVert g_i \rVert^2 \\
        \theta &\leftarrow \theta - \alpha \frac{\bar r_t}{\sqrt{G_t + \epsilon}}\, g

    Notes
    -----
    The state: ``"start"``, the parameter at construction. Running scalars, for all parameters together: ``"distance"``,
    :math:`\bar r_t`, and ``"squares"``, :math:`G_t`.

    The norms are over all parameters of all groups, and are summed up in a pass of their own before the step. A NaN in a
    parameter or a gradient makes the rate NaN for good, and with it all parameters.

    References
    ----------
    .. [1] Ivgi, Hinder, Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size schedule", ICML 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.DoG(w, first_distance=0.5, relative=False)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.7, 2.4])
    """

    rule, state_names = descent_from_start, ("start",)
    scalars: ClassVar[Mapping[str, float]] = {"distance": 0.0, "squares": 0.0}
    lr: Rate = hyper(1.0)
    first_distance: float = hyper(
        1e-6, nonnegative, r"What :math:`\bar r` starts at; with `relative`, times :math:`1 + \lVert\theta_0\rVert`."
    )
    relative: bool = hyper(True, doc="Whether `first_distance` is relative to the norm of the parameters.")
    eps: float = hyper(1e-8, doc=r":math:`\epsilon`.")
    weight_decay: float = hyper(0.0)

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return theta

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return distances_and_size

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return dog_rate

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return hyper["first_distance"], hyper["relative"], hyper["eps"]


class DoWG(Optimizer):
    r"""DoWG, distance over weighted gradients, as Khaled, Mishchenko and Jin have it.

    .. math::

        \bar r_t^2 &= \max_{i \le t} \lVert\theta_i - \theta_0\rVert^2, \qquad G_t = \sum_{i \le t} \bar
        r_i^2 \lVert g_i \rVert^2 \\
        \theta &\leftarrow \theta - \alpha \frac{\bar r_t^2}{\sqrt{G_t} + \epsilon}\, g

    Notes
    -----
    The state: ``"start"``, the parameter at construction. Running scalars, for all parameters together: ``"distance2"``,
    :math:`\bar r_t^2`, and ``"squares"``, :math:`G_t`. The norms are over all parameters of all groups. A NaN in a parameter or
    a gradient makes the rate NaN for good, and with it all parameters.

    References
    ----------
    .. [1] Khaled, Mishchenko, Jin, "DoWG unleashed: an efficient universal parameter-free gradient descent
       method", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.DoWG(w, first_distance=0.5)
    >>> opt.step(np.array([3.0, -4.0]))
    >>> w.round(6)
    array([0.700012, 2.399984])
    """

    rule, state_names = descent_from_start, ("start",)
    scalars: ClassVar[Mapping[str, float]] = {"distance2": 0.0, "squares": 0.0}
    lr: Rate = hyper(1.0)
    first_distance: float = hyper(1e-2, nonnegative, r"What :math:`\bar r` starts at.")
    eps: float = hyper(1e-4, doc=r":math:`\epsilon`.")
    weight_decay: float = hyper(0.0)

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        return theta

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        return distances

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        return dowg_rate

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        return hyper["first_distance"], hyper["eps"]
