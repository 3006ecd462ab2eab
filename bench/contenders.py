"""Who is measured: fastopt, the streaming limit, and each way to take the same step with other libraries.

Each contender gets the arrays in its library's own form beforehand, so no conversion is timed. All but optax update the
NumPy array of the problem itself.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

import fastopt
from bench.cases import Case, Problem
from bench.limit import streaming_step
from fastopt.demo import in_place

# PyTorch's optimizers with a fused kernel for the CPU.
FUSED = ("SGD", "Adagrad", "Adam", "AdamW")


class Running(NamedTuple):
    """A contender on a problem."""

    step: Callable[[], Any]
    theta: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Contender:
    """One way to take a step.

    Attributes
    ----------
    name : str
        How tables call it.
    start : callable
        Prepares a problem.
    requires : tuple of str
        Modules that must be installed.
    has : callable
        Whether there is a counterpart of a case.
    """

    name: str
    start: Callable[[Problem], Running]
    requires: tuple[str, ...] = ()
    has: Callable[[Case], bool] = lambda case: True

    @property
    def missing(self) -> list[str]:
        """Required modules that are not installed."""
        return [module for module in self.requires if importlib.util.find_spec(module) is None]


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


def start_torch(problem: Problem, **implementation: bool) -> Running:
    """PyTorch on the same memory, ``fused=True`` or ``foreach=True``."""
    import torch

    case, theta, g, lr = problem
    torch.set_default_dtype(torch.float64 if theta.dtype == np.float64 else torch.float32)  # of what ASGD and NAdam remember
    name, hyper = case.torch
    parameter = torch.from_numpy(theta).requires_grad_()
    parameter.grad = torch.from_numpy(g)
    return Running(getattr(torch.optim, name)([parameter], lr=lr, **hyper, **implementation).step, lambda: theta)


def start_optax(problem: Problem) -> Running:
    """Optax under ``jax.jit``, which updates in place because parameters and state are donated."""
    import jax
    import optax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    case, theta, g, lr = problem
    name, hyper = case.optax
    make = attrgetter(name)(optax)
    if case.has_rates:
        make = optax.inject_hyperparams(make)  # else the array would be a constant of the compiled code
    transformation = make(learning_rate=lr, **hyper)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, gradient = jax.numpy.array(theta), jax.numpy.array(g)
    state = jax.tree.map(jax.numpy.array, transformation.init(params))  # a copy: what is donated may be there only once

    def step():
        nonlocal params, state
        params, state = update(params, state, gradient)
        params.block_until_ready()  # as with all others, the step is done when it returns

    return Running(step, lambda: np.asarray(params))


CONTENDERS = (
    Contender("fastopt", start_fastopt),
    Contender("streaming limit", start_limit),
    Contender("in-place NumPy", start_in_place, has=has_in_place),
    Contender(
        "PyTorch fused",
        functools.partial(start_torch, fused=True),
        requires=("torch",),
        has=lambda case: case.torch is not None and case.torch[0] in FUSED,
    ),
    Contender(
        "PyTorch foreach",
        functools.partial(start_torch, foreach=True),
        requires=("torch",),
        has=lambda case: case.torch is not None,
    ),
    Contender("optax under jit", start_optax, requires=("jax", "optax"), has=lambda case: case.optax is not None),
)
