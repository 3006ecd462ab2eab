"""Fused first-order optimizers for NumPy arrays, at memory speed."""

from fastopt import optimizers, rules, schedules
from fastopt.arrays.flat import Flat, flatten
from fastopt.bridges.compiled_loops import Embedded, embed
from fastopt.bridges.torch_state import from_torch_state_dict, to_torch_state_dict
from fastopt.commands.warmup import warmup
from fastopt.description.fields import hyper
from fastopt.engine.compile import RuleError
from fastopt.engine.decisions import decision
from fastopt.engine.runtime import get_num_threads, get_parallel_threshold, set_num_threads, set_parallel_threshold
from fastopt.minimization import GradientCheck, RateTest, Solver, check_gradient, find_lr, minimize, scipy_method
from fastopt.optimizer import Optimizer
from fastopt.optimizers import *  # noqa: F403 - their list stands once, in fastopt/optimizers/__init__.py
from fastopt.rules.own import rule
from fastopt.saving.checkpoints import load, save, save_async

__version__ = "1.0.0"

__all__ = [
    "Embedded",
    "Flat",
    "GradientCheck",
    "Optimizer",
    "RateTest",
    "RuleError",
    "Solver",
    "check_gradient",
    "decision",
    "embed",
    "find_lr",
    "flatten",
    "from_torch_state_dict",
    "get_num_threads",
    "get_parallel_threshold",
    "hyper",
    "load",
    "minimize",
    "rule",
    "rules",
    "save",
    "save_async",
    "schedules",
    "scipy_method",
    "set_num_threads",
    "set_parallel_threshold",
    "to_torch_state_dict",
    "warmup",
]
__all__ += optimizers.__all__
