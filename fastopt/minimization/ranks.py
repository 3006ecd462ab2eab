"""A minimization by several ranks, each with variables of its own: what they have to agree on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.minimization.stopping import SmallGradient, SmallStep, Test, Told
from fastopt.mpi.agreement import together
from fastopt.mpi.owned import owned
from fastopt.mpi.sums import InRankOrder
from fastopt.optimizer import Optimizer
from fastopt.step.shared_steps import Allreduce

# Options that look at all variables, and the values with which they don't.
ALONE: Mapping[str, tuple[Any, ...]] = {"noisy": (False,), "history": (None,)}

# The tests that hold if they hold for the variables of every rank; any other one does if it holds on one.
OF_EACH = (SmallGradient, SmallStep)

# Numbers that a message has: as all have as many, a rank that fails can answer whichever comes next.
LENGTH = 32

AskToStop = Callable[[Callable[[], Any]], bool]


class Ranks:
    """What the ranks of a communicator tell each other.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    own : mapping
        The options of the solver, which must be alike.
    starts : None
        There must not be any.

    Raises
    ------
    ValueError
        If there is an option that is not for several ranks, or they have different ones.
    """

    def __init__(self, comm: Any, own: Mapping[str, Any], starts: Any) -> None:
        self._comm = comm
        with together(comm) as same:
            if starts is not None:
                raise ValueError("starts are not for several ranks")
            if isinstance(own["g_scale"], str):
                raise ValueError("g_scale must be a number with several ranks, whose first gradients are not of one size")
            if asked := [name for name, off in ALONE.items() if own[name] not in off]:
                raise ValueError(f"{asked[0]} is not for several ranks, as it would look at the variables of one alone")
            same |= {name: value for name, value in own.items() if name not in ("x_scale", "state")}
        self._add = Allreduce(InRankOrder(comm))

    def optimizer(self, cls: type[Optimizer], params: Any, arguments: Mapping[str, Any]) -> Optimizer:
        """An optimizer of this rank's variables."""
        return owned(cls, params, self._comm, **arguments)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A ``with`` block of a step, in which an exception on one rank is one on all."""
        with self._add.telling_failure([LENGTH]):
            yield

    def heard(self, value: float | None, is_odd: bool) -> tuple[float | None, bool]:
        """The objective as the first rank has it; and whether something is not finite on any."""
        is_first = self._comm.rank == 0
        first, odd = self._sum(value if is_first and value is not None and np.isfinite(value) else 0.0, is_odd)
        return value if odd or value is None else first, bool(odd)

    def refused(self, wrong: str) -> str:
        """What is not finite on any rank, in words."""
        return self._add.told(wrong or None) if self.any(bool(wrong)) else ""

    def agreeing(self, told: Told, tests: Sequence[Test]) -> Test:
        """Tests in one that comes out alike on all ranks."""
        return Agreed(told, tests, self._sum, self._comm.size)

    def agreed(self, asks_to_stop: AskToStop | None) -> AskToStop | None:
        """A callback that asks to stop if that of any rank does, some of which may have none."""
        if not self.any(asks_to_stop is not None):
            return None
        return lambda result: self.any(asks_to_stop is not None and asks_to_stop(result))

    def any(self, is_so: bool) -> bool:
        """Whether something is so on any rank."""
        return bool(self._sum(is_so)[0])

    def _sum(self, *numbers: float) -> list[float]:
        message = np.zeros(LENGTH)
        message[: len(numbers)] = numbers
        self._add.expected.append(LENGTH)  # another one follows, whatever happens meanwhile
        (total,) = self._add([message])
        return [float(number) for number in total[: len(numbers)]]


class Agreed(Test):
    """Some tests in one, which asks all ranks at once."""

    def __init__(self, told: Told, tests: Sequence[Test], add: Callable[..., list[float]], size: int) -> None:
        super().__init__(told)
        self._tests, self._add, self._size = tests, add, size

    def reason(self) -> int | None:
        """The status of the first test that holds, if one does."""
        reasons = [test.reason() for test in self._tests]
        count = len(reasons)
        sums = self._add(*(reason is not None for reason in reasons), *(reason or 0 for reason in reasons))
        for test, holding, statuses in zip(self._tests, sums[:count], sums[count:], strict=True):
            if holding == self._size or (holding and not isinstance(test, OF_EACH)):
                return int(statuses / holding)  # which is the same on all
        return None
