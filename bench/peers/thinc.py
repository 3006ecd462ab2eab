"""thinc, on the memory of the problem."""

from __future__ import annotations

import numpy as np

from bench.cases import Counterpart, Problem
from bench.contender import Contender, Running

# Its AdamW shrinks the parameter after the step, and its RAdam corrects for one step more than there were.
COUNTERPARTS: dict[str, Counterpart] = {
    "SGD": ("SGD", {}),
    "Adam": ("Adam", {"eps": 0.0}),
}


def start(problem: Problem) -> Running:
    """Without what is on by default: clipping, and averages of the parameters.

    Its optimizers leave zeros in the place of the gradient: a step that is timed begins with a copy of the gradient.
    """
    from thinc import api

    case, theta, g, lr = problem
    name, hyper = COUNTERPARTS[case.name]
    optimizer = getattr(api, name)(lr, grad_clip=0.0, use_averages=False, **hyper)
    gradient = np.empty_like(g)

    def step():
        np.copyto(gradient, g)
        optimizer((0, "theta"), theta, gradient)

    return Running(step, lambda: theta)


CONTENDER = Contender(
    "thinc",
    start,
    requires=("thinc",),
    has=lambda case: case.name in COUNTERPARTS,
    dtypes=("float32",),
    tolerance=64,  # its Adam takes 1 - beta2 from a beta2 in single precision
)
