"""Fused first-order optimizers for NumPy arrays, at memory speed."""

from fastopt import optimizers, rules, schedules
from fastopt.custom import rule
from fastopt.embedded import Embedded, embed
from fastopt.engine.compile import RuleError
from fastopt.engine.runtime import get_num_threads, get_parallel_threshold, set_num_threads, set_parallel_threshold
from fastopt.fields import hyper
from fastopt.flat import Flat, flatten
from fastopt.minimization import minimize, scipy_method
from fastopt.optimizer import Optimizer, warmup
from fastopt.optimizers import *  # noqa: F403 - their list stands once, in fastopt/optimizers/__init__.py
from fastopt.torch_state import from_torch_state_dict, to_torch_state_dict

__version__ = "0.1.0"

__all__ = [
    "Embedded",
    "Flat",
    "Optimizer",
    "RuleError",
    "embed",
    "flatten",
    "from_torch_state_dict",
    "get_num_threads",
    "get_parallel_threshold",
    "hyper",
    "minimize",
    "rule",
    "rules",
    "schedules",
    "scipy_method",
    "set_num_threads",
    "set_parallel_threshold",
    "to_torch_state_dict",
    "warmup",
]
__all__ += optimizers.__all__
