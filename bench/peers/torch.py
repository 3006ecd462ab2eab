"""PyTorch's optimizers, on the memory of the problem: fused, for-each, and compiled."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from bench.cases import Case, Problem
from bench.contender import Contender, Running

# Those with a fused kernel for the CPU.
HAVE_FUSED = ("SGD", "Adagrad", "Adam", "AdamW")

# Those that take a rate in a tensor only if they are capturable.
CAPTURABLE_FOR_RATE = ("Adam", "AdamW")


def _optimizer(problem: Problem, lr: Any, **implementation: bool) -> Any:
    import torch

    case, theta, g, _ = problem
    torch.set_default_dtype(torch.float64 if theta.dtype == np.float64 else torch.float32)  # of what ASGD and NAdam remember
    name, hyper = case.torch
    parameter = torch.from_numpy(theta).requires_grad_()
    parameter.grad = torch.from_numpy(g)
    return getattr(torch.optim, name)([parameter], lr=lr, **hyper, **implementation)


def start(problem: Problem, **implementation: bool) -> Running:
    """``fused=True`` or ``foreach=True``."""
    return Running(_optimizer(problem, problem.lr, **implementation).step, lambda: problem.theta)


def start_compiled(problem: Problem) -> Running:
    """PyTorch's recipe for a compiled step; the rate is a tensor, so that a new one would compile nothing again."""
    import torch

    with warnings.catch_warnings():
        # The compiler imports this module, which uses what PyTorch itself calls deprecated.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script_method` is deprecated", DeprecationWarning)
        import torch.utils.mkldnn

    torch.compiler.reset()  # after a few optimizers, it would take the next one's step without compiling it
    capturable = {"capturable": True} if problem.case.torch[0] in CAPTURABLE_FOR_RATE else {}
    optimizer = _optimizer(problem, torch.tensor(problem.lr, dtype=torch.float64), foreach=True, **capturable)
    return Running(torch.compile(lambda: optimizer.step(), fullgraph=False), lambda: problem.theta)


def _has(case: Case) -> bool:
    return case.torch is not None


FUSED = Contender(
    "PyTorch fused",
    functools.partial(start, fused=True),
    requires=("torch",),
    has=lambda case: _has(case) and case.torch[0] in HAVE_FUSED,
)
FOREACH = Contender("PyTorch foreach", functools.partial(start, foreach=True), requires=("torch",), has=_has)
COMPILE = Contender(
    "PyTorch compile",
    start_compiled,
    requires=("torch",),
    programs=("g++", "c++"),
    has=_has,
    tolerance=64,  # bias corrections, such as 1 - 0.999, are differences in single precision
)
