"""Minimization in SciPy's form, by the steps of an optimizer."""

from fastopt.minimization.arguments import METHODS
from fastopt.minimization.functions import minimize, scipy_method

__all__ = ["METHODS", "minimize", "scipy_method"]
