"""PennyLane, which makes a new array in each step."""

from __future__ import annotations

import numpy as np

from bench.cases import Counterpart, Problem
from bench.contender import Contender, Running

COUNTERPARTS: dict[str, Counterpart] = {
    "SGD": ("GradientDescentOptimizer", {}),
    "SGD momentum": ("MomentumOptimizer", {"momentum": 0.9}),
    "AdaGrad": ("AdagradOptimizer", {"eps": 0.0}),
    "RMSProp": ("RMSPropOptimizer", {"decay": 0.9, "eps": 0.0}),
    "Adam": ("AdamOptimizer", {"beta2": 0.999, "eps": 0.0}),
}


def start(problem: Problem) -> Running:
    """Without the gradient, which it would also compute."""
    import pennylane

    case, theta, g, lr = problem
    name, hyper = COUNTERPARTS[case.name]
    optimizer = getattr(pennylane, name)(lr, **hyper)
    params = pennylane.numpy.array(theta, requires_grad=True)

    def step():
        nonlocal params
        (params,) = optimizer.apply_grad((g,), (params,))

    return Running(step, lambda: np.asarray(params))


CONTENDER = Contender(
    "PennyLane",
    start,
    requires=("pennylane",),
    has=lambda case: case.name in COUNTERPARTS,
    dtypes=("float64",),  # its Adam turns single precision into double
)
