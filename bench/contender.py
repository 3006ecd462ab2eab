"""What a contender is."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NamedTuple

from numpy.typing import NDArray

from bench.cases import DTYPES, Case, Problem


class Running(NamedTuple):
    """A contender on a problem."""

    step: Callable[[], Any]
    theta: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Contender:
    """One way to take a step.

    Attributes
    ----------
    name : str
        How tables call it.
    start : callable
        Prepares a problem.
    requires : tuple of str
        Modules that must be installed.
    programs : tuple of str
        Programs, one of which must be installed; none if empty.
    has : callable
        Whether there is a counterpart of a case.
    dtypes : tuple of str
        What it computes in.
    tolerance : int
        How far it may be from fastopt after three steps, relative and in machine epsilons.
    """

    name: str
    start: Callable[[Problem], Running]
    requires: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    has: Callable[[Case], bool] = lambda case: True
    dtypes: tuple[str, ...] = DTYPES
    tolerance: int = 8

    @property
    def missing(self) -> list[str]:
        """What is required and not installed."""
        missing = [module for module in self.requires if _spec(module) is None]
        if self.programs and not any(map(shutil.which, self.programs)):
            missing.append(" or ".join(self.programs))
        return missing


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, without an import of the package that it is in."""
    parent = module.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(module)
    package = _spec(parent)
    return package and PathFinder.find_spec(module, package.submodule_search_locations)
