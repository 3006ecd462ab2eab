"""Who is measured: fastopt, the streaming limit, and each way to take the same step with NumPy and with other libraries.

Each contender gets the arrays in its library's own form beforehand, so no conversion is timed.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os

import numba

import fastopt
from bench.cases import Case, Problem
from bench.contender import Contender, Running
from bench.limit import streaming_step
from bench.peers import PEERS
from fastopt.commands.demo import in_place


def set_num_threads(n: int) -> None:
    """Let every contender use this many threads; JAX only until it has started."""
    fastopt.set_num_threads(n)
    numba.set_num_threads(n)
    os.environ["NPROC"] = str(n)  # XLA sizes its thread pool by it
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(n)


def start_fastopt(problem: Problem) -> Running:
    """What this project makes."""
    case, theta, g, lr = problem
    return Running(functools.partial(case.start(theta, lr).step, g), lambda: theta)


def start_limit(problem: Problem) -> Running:
    """The streaming limit; it has arrays of its own and computes nothing of use."""
    case, theta, _, _ = problem
    return Running(streaming_step(case.passes, theta.size, theta.dtype), lambda: theta)


def has_in_place(case: Case) -> bool:
    """Whether the NumPy user has written this form."""
    optimizer = getattr(in_place, case.optimizer.__name__, None)
    return optimizer is not None and case.hyper.keys() <= inspect.signature(optimizer).parameters.keys()


def start_in_place(problem: Problem) -> Running:
    """What a careful NumPy user writes."""
    case, theta, g, lr = problem
    optimizer = getattr(in_place, case.optimizer.__name__)(theta, lr=lr, **case.hyper)
    return Running(functools.partial(optimizer.step, g), lambda: theta)


OURS, LIMIT = "fastopt", "streaming limit"

CONTENDERS = (
    Contender(OURS, start_fastopt),
    Contender(LIMIT, start_limit),
    Contender("in-place NumPy", start_in_place, has=has_in_place),
    *PEERS,
)
