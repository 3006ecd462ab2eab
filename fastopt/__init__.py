"""Fused first-order optimizers for NumPy arrays, at memory speed."""

from fastopt import optimizers, schedules
from fastopt.custom import rule
from fastopt.engine.compile import RuleError
from fastopt.engine.runtime import get_num_threads, set_num_threads
from fastopt.flat import Flat, flatten
from fastopt.optimizer import Optimizer, warmup
from fastopt.optimizers import *  # noqa: F403 - their list stands once, in fastopt/optimizers/__init__.py
from fastopt.torch_state import from_torch_state_dict, to_torch_state_dict

__version__ = "0.1.0"

__all__ = [
    "Flat",
    "Optimizer",
    "RuleError",
    "flatten",
    "from_torch_state_dict",
    "get_num_threads",
    "rule",
    "schedules",
    "set_num_threads",
    "to_torch_state_dict",
    "warmup",
]
__all__ += optimizers.__all__
