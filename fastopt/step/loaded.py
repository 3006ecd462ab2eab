"""Optimizers that were loaded: whether anybody has the arrays that they step."""

from __future__ import annotations

import gc
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from fastopt.arrays.flat import Flat
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.tree import leaves


def warn_if_alone(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    """Warn if nothing but the optimizer refers to its parameters, so that stepping them could change nothing for anybody.

    A pickler that writes arrays one by one, joblib's, writes those of a model twice if its optimizer is saved with it.
    """
    if not all(p.array.flags.writeable for p in parameters):
        return  # which the step says
    own = _references(optimizer)
    # All are counted in the same way, and to the last one nobody else refers.
    held = [*(each for p in parameters for each in _objects(p.leaf)), object()]
    counts = [sys.getrefcount(each) for each in held]
    if all(count - counts[-1] <= own[id(each)] for each, count in zip(held, counts, strict=True)):
        warnings.warn(
            f"since it was loaded, nothing but this {type(optimizer).__name__} refers to its parameters: if they were saved "
            "with a model, the two came apart; take them from opt.params, or give it the model's by opt.rebind(params)",
            RuntimeWarning,
            stacklevel=6,
        )


def _objects(leaf: Any) -> Iterator[Any]:
    """By which others may have a parameter."""
    yield leaf
    if isinstance(leaf, Flat):
        yield from (leaf.buffer, leaf.buffer.base, *(each for _, each in leaves(leaf.tree, "")))


def _references(owner: Any) -> Counter[int]:
    """How often objects are referred to from what belongs to another one, by their identities."""
    counts: Counter[int] = Counter()
    seen: set[int] = set()
    left = [owner]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, (type, FunctionType, ModuleType)):
            continue
        seen.add(id(each))
        found = [each.base] if isinstance(each, np.ndarray) else gc.get_referents(each)
        counts.update(map(id, found))
        left += found
    return counts
