"""One rule's kernels for arrays of one size: the serial one, the parallel one, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

from fastopt.engine import runtime
from fastopt.engine.compile import Variant, entry_point
from fastopt.engine.launch import NO_TRIAL_FROM_BYTES, Launcher, in_turn

# A compiled function, and the arguments that it takes after ``(arrays, g, lr, coefficients)``.
Route = tuple[Callable[..., None], tuple[int, ...]]


class Kernel:
    """How to step arrays of ``size`` elements: by the serial `variant`, or by its parallel twin.

    Parameters
    ----------
    variant : Variant
        The serial variant.
    size : int
        Elements of each array.
    blocks : int, optional
        Their blocks, if the variant measures.

    Attributes
    ----------
    route : tuple or None
        What `prepare` returns, once it is known that it will always be the same.
    """

    def __init__(self, variant: Variant, size: int, blocks: int | None = None) -> None:
        self.variant = variant
        self._length = size if blocks is None else blocks
        self.route: Route | None = None
        self._launch: Callable[..., None] | None = None
        self._traffic = size * variant.bytes_per_element
        self._is_small = self._traffic < runtime.SERIAL_BELOW_BYTES

    def prepare(self) -> Route:
        """Choose between serial and parallel for the next launch, and compile the choice if need be."""
        if not self._is_small and runtime.may_launch_parallel():
            if self._launch is None:
                make = Launcher if self._traffic < NO_TRIAL_FROM_BYTES else in_turn
                self._launch = make(entry_point(self.variant._replace(parallel=True)))
            return self._launch, (self._length,)
        route = entry_point(self.variant), (0, self._length)
        if self._is_small:
            self.route = route
        return route
