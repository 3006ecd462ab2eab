"""DeepSpeed's optimizers for the CPU, in C++, which it compiles when they are first used; on the memory of the problem."""

from __future__ import annotations

import os
from operator import attrgetter

from bench.cases import Counterpart, Problem
from bench.contender import Contender, Running

# Its AdaGrad leaves the last few steps in the place of their gradients: those that don't fill a vector.
COUNTERPARTS: dict[str, Counterpart] = {
    "Adam": ("adam.DeepSpeedCPUAdam", {"eps": 0.0, "adamw_mode": False}),
    "AdamW": ("adam.DeepSpeedCPUAdam", {"eps": 0.0, "weight_decay": 0.01}),
    "Lion": ("lion.DeepSpeedCPULion", {"betas": (0.8, 0.95)}),
}


def start(problem: Problem) -> Running:
    """The optimizer that DeepSpeed offloads to the CPU."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it looks for others, and says that there are none
    import torch
    from deepspeed import ops

    case, theta, g, lr = problem
    name, hyper = COUNTERPARTS[case.name]
    parameter = torch.from_numpy(theta).requires_grad_()
    parameter.grad = torch.from_numpy(g)
    return Running(attrgetter(name)(ops)([parameter], lr=lr, **hyper).step, lambda: theta)


CONTENDER = Contender(
    "DeepSpeed",
    start,
    requires=("deepspeed", "ninja"),
    programs=("g++", "c++"),
    has=lambda case: case.name in COUNTERPARTS,
    dtypes=("float32",),
    tolerance=32,  # 1 - beta2 is taken from a beta2 in single precision
)
