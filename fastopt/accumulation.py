"""Gradients of several micro-batches, added up in buffers of their own until a step takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fastopt.arrays import aligned_zeros
from fastopt.engine.compile import Variant, part
from fastopt.engine.kernel import Kernel
from fastopt.parameters import Parameter


@part
def taking(theta: Any, g: Any, lr: Any) -> Any:
    """Take the gradient."""
    return g


@part
def adding(theta: Any, g: Any, lr: Any) -> Any:
    """Add the gradient."""
    return theta + g


class Accumulation:
    """Sums of gradients in the dtypes of their parameters.

    Attributes
    ----------
    count : int
        How many gradients were added since the last step.
    """

    def __init__(self) -> None:
        self.count = 0
        self._buffers: dict[Parameter, NDArray[Any]] = {}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._begun: set[Parameter] = set()

    def add(self, vectors: Mapping[Parameter, NDArray[Any]]) -> None:
        """Add the gradient of each parameter to its sum."""
        if not self.count:  # the last time may have been interrupted
            self._begun.clear()
        for p, g in vectors.items():
            if p not in self._buffers:
                self._buffers[p] = aligned_zeros(p.theta.size, p.theta.dtype)
            # The first one takes the place of what is there: so nothing has to be set to zero before.
            rule = adding if p in self._begun else taking
            kernel = self._kernels.get((p, rule, g.dtype))
            if kernel is None:
                variant = Variant(rule, p.theta.dtype, g.dtype, (), (), lr_is_array=False)
                kernel = self._kernels[p, rule, g.dtype] = Kernel(variant, p.theta.size)
            run = kernel.run or kernel.prepare()
            run((self._buffers[p],), g.reshape(-1), 0.0, ())
            self._begun.add(p)
        self.count += 1

    def sums(self, parameters: list[Parameter]) -> dict[Parameter, NDArray[Any]]:
        """What was added up for some parameters.

        Raises
        ------
        ValueError
            If nothing was added for one of them.
        """
        if missing := [p for p in parameters if p not in self._begun]:
            raise ValueError(f"nothing was accumulated for {missing[0].name}")
        return {p: p.formed(self._buffers[p]) for p in parameters}

    def clear(self) -> None:
        """Begin anew."""
        self.count = 0
        self._begun.clear()
