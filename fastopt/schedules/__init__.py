"""Schedules: callables that give a hyper-parameter's value from the number of steps taken so far, 0 for the first step.

Values are absolute, and beyond a schedule's last step its value stays. All but `ReduceOnPlateau` are immutable, compare equal
if their numbers do, and can be pickled.
"""

from fastopt.schedules.averaging import BiasCorrected, PlainAverage
from fastopt.schedules.combined import Joined, Pair, Warmup
from fastopt.schedules.decays import Constant, Exponential, Linear, MultiStep, Polynomial, Step
from fastopt.schedules.plateau import ReduceOnPlateau
from fastopt.schedules.waves import Cosine, CosineWarmRestarts, OneCycle

__all__ = [
    "BiasCorrected",
    "Constant",
    "Cosine",
    "CosineWarmRestarts",
    "Exponential",
    "Joined",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Pair",
    "PlainAverage",
    "Polynomial",
    "ReduceOnPlateau",
    "Step",
    "Warmup",
]
