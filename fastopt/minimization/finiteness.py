"""Whether a point and what was found there are finite, and what is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH_FOR_BLAS = 4096  # OpenBLAS begins to share work above 10,000


@np.errstate(all="ignore")
def product(x: NDArray[Any], g: NDArray[Any]) -> Any:
    """The sum of products, which shows in one pass whether both are finite; only where it is too large nothing is known."""
    # For long vectors a threaded BLAS would take other cores, and let them wait in loops when the step comes.
    return x.dot(g) if x.size <= LENGTH_FOR_BLAS else np.einsum("i,i->", x, g)


def what_is_not(x: NDArray[Any], g: NDArray[Any], value: float | None, group: Mapping[str, Any]) -> str:
    """What is not finite, in words; nothing if all is. What the mask of a group leaves out doesn't count."""
    mask = group["mask"]
    for what, array in (("x", x), ("the gradient", g)):
        wrong = np.flatnonzero(~np.isfinite(array) if mask is None else ~np.isfinite(array) & mask)
        if wrong.size:
            return f"element {wrong[0]} of {what} is {array[wrong[0]]}"
    return "" if value is None or math.isfinite(value) else f"the objective is {value}"
