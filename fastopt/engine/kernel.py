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
        streams = 2 * (1 + variant.states) + variant.rates
        traffic = size * (streams * variant.parameter.itemsize + variant.gradient.itemsize)
        self._is_small = traffic < runtime.SERIAL_BELOW_BYTES

    def prepare(self) -> Route:
        """Choose between serial and parallel for the next launch, and compile the choice if need be."""
        if self._is_small or not runtime.may_launch_parallel():
            route = entry_point(self.variant), (0, self.size)
            self.route = route if self._is_small else None
            return route
        if self._launcher is None:
            self._launcher = Launcher(entry_point(self.variant._replace(parallel=True)))
        return self._launcher, ()
