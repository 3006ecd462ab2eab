"""Steps that several processes take together, each with its part of the parameters: their sums go over all of them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.description.recipe import Description
from fastopt.engine import steps
from fastopt.engine.steps import limited_norm
from fastopt.step import clipping
from fastopt.step.groups import Group
from fastopt.step.passes import products_of
from fastopt.step.plan import Plan, Work
from fastopt.step.plans import Run, Vectors
from fastopt.step.stepping import Stepping

# Squares of norms are added up in three sums, so that none leaves the range of double precision (Blue, 1978).
SCALES = 2.0 ** np.array([600.0, 0.0, -600.0])
SMALL, LARGE = 2.0**-500, 2.0**500

# Adds a vector over all who take part, in place, or gives the sums.
Reduce = Callable[[NDArray[Any]], Any]

Arrays = list[NDArray[Any]]

# `Allreduce.same` of a norm that is asked for without a step.
OF_NORM = 1

# Messages begin with so many numbers: how many of those who send them have failed, how many there are, and `Allreduce.same`.
HEAD = 3


class Allreduce:
    """Adds arrays over all who take part, and tells all of them if one of them has failed.

    Parameters
    ----------
    add : callable
        As `Reduce`. If it has a method ``told(message)``, which gives what those say who have a message instead of None, errors
        say that, too. Where options are compared, ``digest(optimizer)`` gives a number for them, and
        ``compare(optimizer, method)`` raises an error if they differ, or the methods that were called.
    meaning : str
        What it means that one has failed, for messages.

    Attributes
    ----------
    expected : list of int
        How many numbers each message has that others still wait for in this step.
    same : int
        Less than 2**32, and the same with all who send a message.
    """

    def __init__(self, add: Reduce, meaning: str = "nothing was changed") -> None:
        self._add, self._meaning = add, meaning
        self.expected: list[int] = []
        self.same = 0
        self._compare: Callable[[], None] | None = None

    def __call__(self, arrays: Arrays) -> Arrays:
        """The sums of arrays, which have the same shapes with all who take part."""
        del self.expected[:1]
        total = self._sent(np.concatenate([[0.0, 1.0, self.same], *(array.reshape(-1) for array in arrays)]))
        if total[0]:
            self.expected.clear()
            said = self.told(None)
            raise RuntimeError(f"another one of those who take part in the step has failed; {self._meaning}{said}")
        if self._compare is not None and total[2] != total[1] * self.same:
            expected, self.expected = self.expected, []  # the others have come to the same
            self._compare()
            self.expected = expected
        sums, begin = [], HEAD
        for array in arrays:
            sums.append(total[begin : begin + array.size].reshape(array.shape))
            begin += array.size
        return sums

    @contextlib.contextmanager
    def telling_failure(self, expected: Iterable[int], compare: Callable[[], None] | None = None) -> Iterator[None]:
        """A ``with`` block in which an exception ends the step of all who wait for a message.

        Parameters
        ----------
        expected : iterable of int
            The attribute, at the beginning.
        compare : callable, optional
            Raises an error that says what is not the same.
        """
        before = self.expected, self.same, self._compare  # of a step whose schedule asks for a norm, say
        self.expected, self.same, self._compare = [*expected], 0, compare
        try:
            yield
        except BaseException as error:
            if self.expected:
                message = np.zeros(HEAD + self.expected[0])
                message[0] = 1.0
                self.expected.clear()
                self._sent(message)
                self.told(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.expected, self.same, self._compare = before

    def told(self, message: str | None) -> str:
        """What those say who have a message, when all have come to an error."""
        tell = getattr(self._add, "told", None)
        return "" if tell is None else f" ({tell(message)})"

    def _sent(self, message: NDArray[Any]) -> NDArray[Any]:
        try:
            given = self._add(message)
        except Exception:  # that of a signal comes up when the message is there, for which nearly all time is spent
            self.expected.clear()
            raise
        total = message if given is None else np.asarray(given)
        if total.shape != message.shape or total.dtype != np.float64:
            self.expected.clear()
            raise TypeError(f"reduce must add an array of float64 in place or give one of shape {message.shape}, got {given!r}")
        return total


class SharedStepping(Stepping):
    """Takes the steps of an optimizer whose parameters are a part of those that are stepped.

    All who take part have the same groups, and in them the same tensors: each has a part of every tensor, which may be empty. A
    step computes the sums of the part, adds them up over all, and goes on with these: once for norms of gradients, and once for
    what an optimizer measures.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._allreduce = Allreduce(self._whole["reduce"])
        self._lengths: tuple[int, ...] = ()  # of the messages of a step
        self._digest: int | None = None  # of options but for rates, until they change

    def agree(self, description: Any) -> None:
        """Let steps send messages of no other lengths from now on than at present, which all who take part have found alike."""
        description._agreed = self._lengths_of(description)  # an attribute of the optimizer, and so of its copies

    def take(self, description: Description, grads: Any, scale: float) -> None:
        """Take a step; see `Optimizer.step`."""
        self._take_by(functools.partial(self._plans.run, grads, "grads"), description, grads, scale)

    def ready(self, description: Description, scale: float) -> tuple[list[tuple[Group, Work]], float]:
        """What steps of some rows take, which nobody else waits for."""
        if self.needs_norms():
            raise ValueError("clip_norm and nonfinite are not for steps of some rows with reduce, which send no sums")
        return super().ready(description, scale)

    def norm(self, description: Description, grads: Any) -> float:
        """The norm of all gradients, without a step, by a message that is told from one of a step."""
        groups = self._model.active
        with self._allreduce.telling_failure([_length_of_norms(groups)], self._compare(description, "norm")):
            norms = np.array(self._norms(grads)[:-1])
            self._allreduce.same = OF_NORM
            _, shared = self._allreduce([np.zeros(1), squared(norms)])
        return math.hypot(*rooted(shared))

    def telling_failure(self, description: Description) -> contextlib.AbstractContextManager[None]:
        """A ``with`` block of a step, in which an exception ends the step of all."""
        agreed: tuple[int, ...] | None = getattr(description, "_agreed", None)
        if self._changes.of_plan:
            self._lengths = self._lengths_of(description)
        expected = self._lengths if agreed is None else agreed
        return self._allreduce.telling_failure(expected, self._compare(description, "step"))

    def _compare(self, description: Description, method: str) -> Callable[[], None]:
        """What raises an error if something is not the same with all."""
        return functools.partial(getattr(self._whole["reduce"], "compare", _refuse), description, method)

    def prepare(self, description: Description, scale: float = 1.0) -> float:
        """Follow schedules and changes; the scale, checked."""
        if self._changes.any:
            self._digest = None
        return super().prepare(description, scale)

    def _take_by(self, run: Callable[[Run], int], description: Description, grads: Any, scale: float) -> None:
        with self.telling_failure(description):
            super()._take_by(run, description, grads, scale)

    def _build_works(self, description: Description) -> None:
        super()._build_works(description)
        self._lengths = self._lengths_of(description)
        if (agreed := getattr(description, "_agreed", None)) not in (None, self._lengths):
            raise RuntimeError(
                f"an option or a group was changed such that a step exchanges {_said(self._lengths)}, but all who take part "
                f"have agreed on {_said(agreed)}; change it on all of them, and call check_synced there before they step"
            )

    def _lengths_of(self, description: Description) -> tuple[int, ...]:
        """How many numbers each message of a step has by what options and groups ask for at present."""
        groups, lengths = self._model.active, []
        if self.needs_norms():
            lengths.append(_length_of_norms(groups))
        if any(group.measure is not None for group in groups):
            lengths.append(count_of_sums(description, groups))
        return tuple(lengths)

    def _run(self, description: Description, grads: Any, scale: float, count: int, plan: Plan, found: Any, token: int) -> int:
        self._write(description)
        if digest := getattr(self._whole["reduce"], "digest", None):
            self._digest = digest(description) if self._digest is None else self._digest
            rates = [group.rate for group in self._model.groups]
            self._allreduce.same = zlib.crc32(repr((self._digest, count, int(self.skipped[0]), rates)).encode())
        return self.restarted(self._run_in_parts(grads, scale, count, plan, found, token))

    def _run_in_parts(self, grads: Any, scale: float, count: int, plan: Plan, found: Any, token: int) -> int:
        """Take a step, one call up to each sum that goes over all."""
        if self._phases & steps.SQUARES:
            ended = plan.call(steps.SQUARES, token, scale, found, count)
            if ended not in (steps.DONE, steps.NOT_FINITE, steps.OUT_OF_RANGE):
                return ended
            is_odd = ended != steps.DONE or not math.isfinite(plan.norm[0])
            own = self._own_failing(plan, grads, scale, ended) if is_odd else None
            if self._agree_to_skip(plan, own):
                self._skip(self._vectors(grads))
                return steps.DONE
            found = None
        if self._phases & steps.MEASURES:
            ended = plan.call(steps.BEGIN | steps.MEASURES, token, scale, found, count)
            if ended != steps.DONE:
                return ended
            share_sums(plan, self._works, self._allreduce)
            found = None
        return plan.call(self._phases & ~(steps.SQUARES | steps.MEASURES), token, scale, found, count)

    def _vectors(self, grads: Any) -> Vectors:
        return grads if isinstance(grads, Vectors) else Vectors(self._model.vectors(grads, "grads"))

    def _own_failing(self, plan: Plan, grads: Any, scale: float, ended: int) -> str | None:
        """What to say of a gradient that is not finite; and norms where squares have left the range of double precision."""
        groups, vectors = [group for group, _ in self._works], self._vectors(grads)
        if ended == steps.OUT_OF_RANGE:
            clipping.look_again(plan, groups, vectors, scale)
        if self._whole["nonfinite"] == "propagate" or math.isfinite(plan.norm[0]):
            return None
        return clipping.first_nonfinite(groups, vectors, scale)

    def _agree_to_skip(self, plan: Plan, own: str | None) -> bool:
        """Whether somebody's gradient is not finite and the step is to be skipped; else the norms of all are limited."""
        nonfinite, shared = self._allreduce([np.array([float(own is not None)]), squared(plan.norms)])
        plan.norms[:] = rooted(shared)
        plan.norm[0] = limited_norm(plan.norms, plan.limits, plan.factors)
        if nonfinite and self._whole["nonfinite"] == "raise":
            self._allreduce.expected.clear()  # the others have come to the same
            said = self._allreduce.told(own)
            raise ValueError(own or f"the gradient of another one of those who take part must be finite{said}")
        return bool(nonfinite)


def _refuse(description: Description, method: str) -> None:
    raise RuntimeError(f"another one of those who take part has called another method than {method}; nothing was changed")


def _length_of_norms(groups: Sequence[Group]) -> int:
    """Of a message with the norms of groups, and whether something is not finite."""
    return 1 + SCALES.size * len(groups)


def _said(lengths: Sequence[int]) -> str:
    return " and ".join(f"a message of {length} numbers" for length in lengths) or "nothing"


def share_sums(plan: Plan, works: Sequence[tuple[Group, Work]], add: Callable[[Arrays], Arrays]) -> None:
    """Let a step go on with what all who take part have measured."""
    measured = [(group, work, work.measure) for group, work in works if work.measure is not None]
    if not measured[0][-1].is_by_tensor:
        (plan.shared_sums[:],) = add([plan.shared_sums])
        return
    own = [np.vstack([plan.totals("measure", work), *_sizes(group)]) for group, work, _ in measured]
    for (group, work, measure), sums in zip(measured, add(own), strict=True):
        plan.write_totals("measure", work, sums[: measure.products])
        if group.hyper["cautious"]:
            (lengthened,) = (call.decided for call in work.calls if not call.is_early)
            lengthened.numbers[:, 0] = sums[-1]


def count_of_sums(description: Description, groups: Sequence[Group]) -> int:
    """How many numbers `share_sums` sends for these groups, which need not be ready for a step."""
    counts = []
    measured = [group for group in groups if group.measure is not None]
    if measured[0].hyper["cautious"]:
        return sum(2 * len(group.sizes) for group in measured)
    for group in measured:
        measure: Any = description.measure(group.hyper)
        counts.append(products_of(measure, len(inspect.signature(measure).parameters)))
    if description.per_tensor:
        return sum(count * len(group.sizes) for count, group in zip(counts, measured, strict=True))
    return max(counts)


def _sizes(group: Group) -> list[NDArray[Any]]:
    """The sizes of the tensors where steps depend on them, as those of cautious ones do."""
    return [group.sizes] if group.hyper["cautious"] else []


@np.errstate(all="ignore")
def squared(norms: NDArray[Any]) -> NDArray[Any]:
    """What is to be added up of some norms: shape (3, norms)."""
    places = np.where(norms < SMALL, 0, np.where(norms > LARGE, 2, 1))
    squares = np.zeros((SCALES.size, len(norms)))
    squares[places, np.arange(len(norms))] = np.square(norms * SCALES[places])
    return squares


@np.errstate(all="ignore")
def rooted(squares: NDArray[Any]) -> NDArray[Any]:
    """The norms that were added up."""
    norms: NDArray[Any] = np.hypot.reduce(np.sqrt(squares) / SCALES[:, None], axis=0)
    return norms
