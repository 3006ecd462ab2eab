"""The rows of the table by family: each file has the oracles of some optimizers, and the rows that use them as ``ROWS``."""

import importlib
import pkgutil

# In the order of their names, but gradient descent, AdaGrad, RMSProp and Adam before all others.
NAMES = sorted((module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: (name != "first", name))
MODULES = [importlib.import_module(f"{__name__}.{name}") for name in NAMES]
