"""Minimization in SciPy's form, by the steps of an optimizer."""

from fastopt.minimization.gradient_check import GradientCheck, check_gradient
from fastopt.minimization.options import METHODS
from fastopt.minimization.rate_test import RateTest, find_lr
from fastopt.minimization.scipy_form import minimize, scipy_method
from fastopt.minimization.solver import Solver

__all__ = [
    "METHODS",
    "GradientCheck",
    "RateTest",
    "Solver",
    "check_gradient",
    "find_lr",
    "minimize",
    "scipy_method",
]
