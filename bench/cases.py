"""What is measured: the rows of the tests' table that have a name for it, where all contenders compute the same update."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.options import OPTIONS
from bench.traffic import Pass, passes
from tests.row import Row
from tests.table import TABLE

DTYPES = ("float32", "float64")
SIZES = tuple(10**n for n in range(3, 9))

LR = 1e-3

# Name of an optimizer in another library, and its hyper-parameters besides the learning rate.
Counterpart = tuple[str, dict[str, Any]]


class Problem(NamedTuple):
    """A case with the arrays to run it on."""

    case: Case
    theta: NDArray[Any]
    g: NDArray[Any]
    lr: Any  # a number, or an array with a rate for every element


@dataclass(frozen=True)
class Case:
    """An optimizer with its hyper-parameters, and what it is called elsewhere.

    Attributes
    ----------
    name : str
        How tables call it.
    optimizer : type
        The class in fastopt; that of the same name in `fastopt.commands.demo.in_place`, if there is one, takes the same
        arguments.
    hyper : dict
        Hyper-parameters besides the learning rate.
    has_rates : bool
        Whether the learning rate is an array.
    torch, optax : tuple or None
        The counterparts, None where the library has none.
    option : str
        One of `OPTIONS` that it has besides, or "none".
    """

    name: str
    optimizer: type[fastopt.Optimizer]
    hyper: dict[str, Any]
    has_rates: bool = False
    torch: Counterpart | None = None
    optax: Counterpart | None = None
    option: str = "none"

    def start(self, theta: NDArray[Any], lr: Any) -> fastopt.Optimizer:
        """The optimizer for a parameter."""
        return self.optimizer(theta, lr=lr, **self.hyper, **OPTIONS.get(self.option, {}))

    @functools.cached_property
    def passes(self) -> tuple[Pass, ...]:
        """What the passes of a step touch; the last one updates."""
        theta, _, lr = self.problem(1, "float64")[1:]
        return passes(self.start(theta, lr))

    @property
    def arrays(self) -> int:
        """Arrays that take part: the parameter, the states, the gradient, and others that are only read."""
        return sum(self.passes[-1])

    def traffic(self, size: int, dtype: str) -> int:
        """Bytes that a step must move: in each pass every array that it updates twice, every other one once."""
        return sum(each.moved for each in self.passes) * size * np.dtype(dtype).itemsize

    def problem(self, size: int, dtype: str) -> Problem:
        """Arrays of this size: a parameter of zeros, and a gradient that stays the same in every step."""
        theta = np.zeros(size, dtype)
        g = np.random.default_rng(0).standard_normal(size, theta.dtype.type)
        g[g == 0] = 1  # among millions there are a few, and without eps they would be divided by 0
        lr = np.linspace(0.5 * LR, 1.5 * LR, size, dtype=dtype) if self.has_rates else LR
        return Problem(self, theta, g, lr)


@fastopt.rule(state="m v", hyper="lr beta1=0.9 beta2=0.999 eps=1e-8")
def own_adam(theta, g, lr, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, debias_beta1, debias_root_beta2, eps):
    """As a user would write it: for the same traffic it should take the same time as what is built in."""
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return theta - lr * debias_beta1 * m / (np.sqrt(v) * debias_root_beta2 + eps), m, v


def elements(text: str) -> int:
    """A number of elements as one types it: 1000 or 32e6."""
    return int(float(text))


def with_option(case: Case, option: str) -> Case:
    """The case with an option."""
    return replace(case, option=option)


def _without_rate(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key not in ("lr", "learning_rate")}


def _counterpart(of: Counterpart | None) -> Counterpart | None:
    return of and (of[0], _without_rate(of[1]))


def _cases(row: Row) -> Iterator[Case]:
    if row.bench is not None:
        hyper = _without_rate(row.form | row.numbers)
        case = Case(row.bench, row.optimizer, hyper, torch=_counterpart(row.torch), optax=_counterpart(row.optax))
        yield case
        if case.name == "SGD":
            yield replace(case, name="SGD rate vector", has_rates=True, torch=None)  # there, a rate is a number
        if case.name == "Adam":
            yield replace(case, name="Adam, own rule", optimizer=own_adam)


CASES = tuple(case for row in TABLE for case in _cases(row))
