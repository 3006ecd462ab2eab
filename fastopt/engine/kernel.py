"""One rule's kernels for arrays of one size: the serial one, the parallel one, and the choice between them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fastopt.engine import runtime
from fastopt.engine.compile import Variant, entry_point
from fastopt.engine.launch import Launcher, Run, Sampled

# Steps with less traffic than this are over before other threads are awake, whatever the rule.
SERIAL_BELOW_BYTES = 32 * 1024
# Those with less than this begin on one thread, and go on so forever if that takes less time.
ALONE_FIRST_BELOW_BYTES = 2 * 1024 * 1024
SERIAL_BELOW_SECONDS = 3.5e-6
# A launch with more than this loses little by a turn of the scheduler, and much by a trial on fewer threads.
NO_TRIAL_FROM_BYTES = 128 * 1024 * 1024


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
    run : callable or None
        What `prepare` chose, while it holds.
    """

    def __init__(self, variant: Variant, size: int, blocks: int | None = None) -> None:
        self.variant = variant
        self._length = size if blocks is None else blocks
        self.run: Run | None = None
        self._traffic = size * variant.bytes_per_element
        self._seconds: float | None = None  # on one thread, once it is known
        self._serial: Run | None = None
        runtime.choose_anew_with_changes(self)

    def prepare(self) -> Run:
        """Choose between serial and parallel for the next launches, and compile the choice if need be."""
        threshold = runtime.get_parallel_threshold()
        finds_out = threshold is None
        is_short = finds_out and self._seconds is not None and self._seconds < SERIAL_BELOW_SECONDS
        if self._traffic < (SERIAL_BELOW_BYTES if threshold is None else threshold) or is_short:
            self.run = self._alone()
        elif runtime.is_foreign_thread():
            return self._alone()  # for the present
        elif runtime.available_threads() == 1:
            self.run = self._alone()
        elif finds_out and self._seconds is None and self._traffic < ALONE_FIRST_BELOW_BYTES:
            self.run = Sampled(self._alone(), self._note)
        else:
            tries = finds_out and self._traffic < NO_TRIAL_FROM_BYTES
            seconds, threads = self._seconds if tries else None, runtime.get_num_threads()
            self.run = Launcher(self._alone, self._parallel(), self._length, threads, seconds, tries)
        return self.run

    def compile(self) -> None:
        """Compile all that launches may come to need, with the present number of threads."""
        if isinstance(self.prepare(), Sampled):
            self._parallel()

    def compile_both(self) -> None:
        """Compile what launches may come to need with any number of threads."""
        self._alone()
        self._parallel()

    def _alone(self) -> Run:
        """What runs on the caller's thread."""
        if self._serial is None:
            self._serial = functools.partial(entry_point(self.variant), 0, self._length)
        return self._serial

    def _parallel(self) -> Callable[..., None]:
        return entry_point(self.variant._replace(parallel=True))

    def _note(self, seconds: float) -> None:
        # Before the next step, `prepare` chooses anew: then a kernel that does not compile still leaves all as it was.
        self._seconds, self.run = seconds, None
