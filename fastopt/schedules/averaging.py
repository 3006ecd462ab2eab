"""Decays that change while parameters are averaged: schedules for ``ema_decay``."""

from __future__ import annotations

from dataclasses import dataclass

from fastopt.description.hyperparameters import decay
from fastopt.schedules.common import require_integers


@dataclass(frozen=True)
class BiasCorrected:
    r"""The exponential average without what the parameters were before the first step.

    An average that starts at 0 and is divided by :math:`1 - d^t` at step :math:`t` is one with the decay
    :math:`d (1 - d^{t-1}) / (1 - d^t)`, which starts at 0: so what is stored is always corrected.

    Parameters
    ----------
    decay : float
        :math:`d`, in [0, 1).

    Examples
    --------
    >>> from fastopt.schedules import BiasCorrected
    >>> [round(BiasCorrected(0.9)(step), 3) for step in (0, 1, 2, 100)]
    [0.0, 0.474, 0.631, 0.9]
    """

    decay: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", decay("decay", self.decay))

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        return self.decay * (1.0 - self.decay**step) / (1.0 - self.decay ** (step + 1))


@dataclass(frozen=True)
class PlainAverage:
    """The plain mean of the parameters (Polyak and Juditsky, 1992; with ``every``, stochastic weight averaging).

    Parameters
    ----------
    start : int, default 0
        How many steps are left out. Until then the average is the parameters themselves.
    every : int, default 1
        Of so many steps one counts, the first after `start` and so on.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> from fastopt.schedules import PlainAverage
    >>> w = np.array([1.0])
    >>> opt = fastopt.SGD(w, lr=1.0, ema_decay=PlainAverage())
    >>> for _ in range(3):
    ...     opt.step(np.array([1.0]))
    >>> opt.ema  # of 0, -1 and -2
    array([-1.])
    """

    start: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        require_integers(self, start=0, every=1)

    def __call__(self, step: int) -> float:
        """The value after so many steps."""
        if step < self.start:
            return 0.0
        rounds, rest = divmod(step - self.start, self.every)
        return 1.0 if rest else rounds / (rounds + 1)
