"""One rule's kernels for arrays of one size: the serial one, the parallel one, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

from fastopt.engine import runtime
from fastopt.engine.compile import Variant, entry_point
from fastopt.engine.launch import Launcher

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

    Attributes
    ----------
    route : tuple or None
        What `prepare` returns, once it is known that it will always be the same.
    """

    def __init__(self, variant: Variant, size: int) -> None:
        self.variant = variant
        self.size = size
        self.route: Route | None = None
        self._launcher: Launcher | None = None
        self._is_small = size * variant.bytes_per_element < runtime.SERIAL_BELOW_BYTES

    def prepare(self) -> Route:
        """Choose between serial and parallel for the next launch, and compile the choice if need be."""
        if not self._is_small and runtime.may_launch_parallel():
            if self._launcher is None:
                self._launcher = Launcher(entry_point(self.variant._replace(parallel=True)))
            return self._launcher, ()
        route = entry_point(self.variant), (0, self.size)
        if self._is_small:
            self.route = route
        return route
