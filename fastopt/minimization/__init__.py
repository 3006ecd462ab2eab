"""Minimization in SciPy's form, by the steps of an optimizer."""

from fastopt.minimization.functions import minimize, scipy_method
from fastopt.minimization.options import METHODS
from fastopt.minimization.solver import Solver

__all__ = ["METHODS", "Solver", "minimize", "scipy_method"]
