"""Fused first-order optimizers for NumPy arrays, at memory speed."""

from fastopt.engine.compile import rule
from fastopt.engine.runtime import get_num_threads, set_num_threads
from fastopt.flat import Flat, flatten
from fastopt.optimizer import Optimizer, warmup
from fastopt.optimizers import SGD, AdaBelief, AdaDelta, AdaGrad, Adam, AdaMax, AdamW, Lion, RAdam, RMSProp, Signum

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Flat",
    "Lion",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "Signum",
    "flatten",
    "get_num_threads",
    "rule",
    "set_num_threads",
    "warmup",
]
