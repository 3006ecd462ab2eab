"""What scikit-learn trains its own neural networks with, on the memory of the problem."""

from __future__ import annotations

import functools

from bench.cases import Counterpart, Problem
from bench.contender import Contender, Running

MODULE = "sklearn.neural_network._stochastic_optimizers"  # private: another version may have none

COUNTERPARTS: dict[str, Counterpart] = {
    "SGD": ("SGDOptimizer", {"momentum": 0.0, "nesterov": False}),
    "SGD momentum": ("SGDOptimizer", {"momentum": 0.9, "nesterov": False}),
    "Adam": ("AdamOptimizer", {"epsilon": 0.0}),
}


def start(problem: Problem) -> Running:
    """As ``MLPClassifier.fit`` steps."""
    from sklearn.neural_network import _stochastic_optimizers

    case, theta, g, lr = problem
    name, hyper = COUNTERPARTS[case.name]
    optimizer = getattr(_stochastic_optimizers, name)([theta], learning_rate_init=lr, **hyper)
    return Running(functools.partial(optimizer.update_params, [theta], [g]), lambda: theta)


CONTENDER = Contender("scikit-learn", start, requires=(MODULE,), has=lambda case: case.name in COUNTERPARTS)
