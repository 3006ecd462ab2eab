"""The rows of the table by family: each file has the oracles of some optimizers, and the rows that use them as ``ROWS``."""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
