"""The plan of a step: tables of all that it does, built when something changes, and run by one compiled call."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import complex_of
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import Parameter
from fastopt.engine import steps
from fastopt.engine.compile import Variant, compiled_span
from fastopt.engine.launch import Launch
from fastopt.engine.loop import ITEM
from fastopt.engine.sums import BLOCK, LANES
from fastopt.engine.tables import APART, DECISION, GROUP, HEADER, KNOWS_OBJECTS, LEAF, PASS, ROW, TENSOR, address, table
from fastopt.step import coded
from fastopt.step.decided import Call, Decided
from fastopt.step.passes import Pass, element_of

ONE_AT_A_TIME = "another thread takes a step of this optimizer; it takes one at a time"

WRITEABLE = 0x400  # the flag of an array, by NumPy's C interface

# How compiled code tells the interpreter's own objects.
OBJECTS = {
    "array_type": id(np.ndarray) if KNOWS_OBJECTS else 0,
    "list_type": id(list),
    "tuple_type": id(tuple),
    "tuple_items": tuple.__basicsize__,
}

NO_SCALARS = np.zeros((2, 1, 0))
NO_ROWS = np.zeros(0, ROW)
NO_PASS = {name: np.zeros(1, PASS) for name in ("squares", "measure", "update")}  # which compiled code tells apart by address
BLANK_HEADER = dict.fromkeys(HEADER.names or (), 0)

_tokens = itertools.count(1)

# All that there are.
_plans: weakref.WeakSet[Plan] = weakref.WeakSet()


class BusyError(RuntimeError):
    """Another thread takes a step."""


class Work(NamedTuple):
    """What a step does with the parameters of a group. Some passes may not be there."""

    update: Pass
    step_count: NDArray[Any]  # of the group, shape (1,)
    measure: Pass | None = None
    squares: Pass | None = None  # of the gradient, for its norm
    scalars: NDArray[Any] = NO_SCALARS  # running ones, and those that take their place
    is_scaled: bool = False  # whether the last number of each pass is a scale of the gradient
    calls: tuple[Call, ...] = ()  # what compiled code computes
    decided: Decided | None = None  # what the rule and the measure take of that
    decided_measure: Decided | None = None
    needs_rate: bool = False  # whether other numbers are computed from the learning rate

    def write_rate(self, lr: float) -> None:
        """Let the next steps take this learning rate, and all else as before."""
        self.update.write_rate(lr)
        if self.measure is not None:
            self.measure.write_rate(lr)


class Written(NamedTuple):
    """The table of a pass: its address, and the traffic in bytes."""

    table: int
    traffic: int


class Plan:
    """What steps go through.

    Parameters
    ----------
    parameters : sequence of Parameter
        In the order in which their gradients come.
    works : sequence of Work
        Of the groups that are stepped; the gradients of others are not looked at.
    memory : Memory
        What steps write to, where no gradient may lie.
    gradients : mapping
        The dtype of each parameter's gradient, real for complex ones, too.
    step_count : ndarray of int64, shape (1,)
        Counts steps.
    is_lone : bool, default False
        Whether gradients come as one array, not as a list or tuple of them.
    threads : int, optional
        The most to run on.
    norm : ndarray, shape (1,), optional
        Where to write the norm of all gradients.
    accumulated : ndarray of int64, shape (1,), optional
        Is set to zero by a step.
    limits : ndarray, shape (groups + 1,), optional
        What the norm of the gradients of each group is limited to, and then that of all together; infinity for none.
    finds_nonfinite : bool, default False
        Whether a norm that is not finite ends a step.
    left_out : collection of Parameter
        Those whose elements no pass goes over.

    Attributes
    ----------
    norms, factors : ndarray, shape (groups,)
        The norm of the gradients of each group in the last step that computed it, and the factor that limits it.
    shared_sums : ndarray, shape (products,)
        What was measured, added up over the tensors of all groups.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        works: Sequence[Work],
        memory: Memory,
        gradients: Mapping[Parameter, np.dtype[Any]],
        step_count: NDArray[Any],
        is_lone: bool = False,
        threads: int | None = None,
        norm: NDArray[Any] | None = None,
        accumulated: NDArray[Any] | None = None,
        limits: NDArray[Any] | None = None,
        finds_nonfinite: bool = False,
        left_out: Collection[Parameter] = (),
    ) -> None:
        self.parameters, self.works, self._left_out = list(parameters), works, left_out
        self._gradients, self.threads = gradients, threads
        self._busy = memory.busy
        self._kept: list[Any] = [step_count, accumulated, works]  # whose memory is in the tables by its address
        self._count: Any = memoryview(step_count)  # type: ignore[arg-type, unused-ignore]
        self._tensors_of = _numbered(parameters)
        active = {p: work.update.zeroes for work in works for p in work.update.parameters}
        self._leaves = self._keep([self._leaf(p, active.get(p), gradients[p]) for p in parameters], LEAF)
        self._tensors = self._keep([(0, offset) for p in parameters for offset in _offsets(p)], TENSOR)
        self.norms, self.factors = np.zeros(len(works)), np.ones(len(works))
        self.norm = np.zeros(1) if norm is None else norm
        self.limits = np.full(len(works) + 1, np.inf) if limits is None else limits
        self._totals: dict[str, NDArray[Any]] = {}
        self._rows_of = dict.fromkeys(NO_PASS, NO_ROWS)  # of passes
        self._places = {id(work): [t for p in work.update.parameters for t in self._tensors_of[p]] for work in works}
        squares, measure, update = (self._pass(name) for name in ("squares", "measure", "update"))
        traffic = squares.traffic + measure.traffic + update.traffic
        self.launch, self.launch_sums = Launch(traffic, threads), Launch(squares.traffic + measure.traffic, threads)
        self.is_long = traffic > steps.SHORT_BYTES
        pieces, groups = memory.table(), self._keep(self._groups(), GROUP)
        vectors = {"pieces": pieces, "limits": self.limits, "norms": self.norms, "factors": self.factors, "norm": self.norm}
        vectors |= {"leaves": self._leaves, "tensors": self._tensors, "groups": groups, "step_count": step_count}
        vectors["busy"] = self._busy
        self.shared_sums = np.zeros(max((work.measure.products for work in works if work.measure), default=0))
        early, late = ([row for work in works for row in self._calls(work, at)] for at in (True, False))
        vectors |= {"shared_sums": self.shared_sums, "decisions": self._keep(early + late, DECISION)}
        self._kept.append(vectors)
        header = OBJECTS | {name: address(array) for name, array in vectors.items()}
        header |= {"squares": squares.table, "measures": measure.table, "updates": update.table, "traffic": traffic}
        header |= {"leaf_count": len(parameters), "piece_count": len(pieces), "group_count": len(works)}
        header |= {"early_count": len(early), "decision_count": len(early + late)}
        header |= {"is_lone": is_lone, "is_looking_twice": len(parameters) > 1 and any(active.values())}
        header |= {"nonfinite": finds_nonfinite, "accumulated": 0 if accumulated is None else address(accumulated)}
        self._progress = np.zeros(APART * numba.config.NUMBA_NUM_THREADS, np.int64)
        header["progress"] = address(self._progress)
        self._header = self._keep([tuple((BLANK_HEADER | header).values())], HEADER)
        self._address = address(self._header)
        _plans.add(self)

    def run(self, gradients: Any, scale: float, count: int, phases: int) -> int:
        """Take a step in one call, after so many; ``gradients`` is an array, or a list or tuple of them."""
        launch = self.launch
        return (launch.run or launch.prepare())(self._address, id(gradients), scale, count, 0, phases)

    def held(self, gradients: Any) -> Any:
        """The same gradients, so that nobody can take one out of a list while other threads run."""
        return tuple(gradients) if self.is_long and type(gradients) is list else gradients

    def begin(self) -> int:
        """A number that tells the calls of one step from those of others."""
        return next(_tokens)

    def call(self, phases: int, token: int, scale: float = 1.0, gradients: Any = None, count: int | None = None) -> int:
        """Take a part of a step; without gradients, with those that are known.

        Raises
        ------
        RuntimeError
            If another thread takes one.
        """
        launch = self.launch if phases & steps.UPDATE else self.launch_sums
        known = 0 if gradients is None else id(gradients)
        return free(launch(self._address, known, scale, self._count[0] if count is None else count, token, phases))

    def is_last(self, token: int) -> bool:
        """Whether nobody else has called since."""
        return bool(self._header["token"][0] == token)

    def write_gradients(self, vectors: Mapping[Parameter, NDArray[Any]], token: int) -> None:
        """Take note of where gradients lie, as vectors that spans take.

        Raises
        ------
        RuntimeError
            If another thread takes a step, whose gradients these are not.
        """
        free(steps.BUSY if self._busy[0] else steps.DONE)
        self._header["token"] = token
        for p, vector in vectors.items():
            begin, item = address(vector), vector.itemsize * (1 + p.is_complex)
            for t in self._tensors_of[p]:
                gradient = self._tensors[t]
                gradient["gradient"] = begin + int(gradient["offset"]) * item

    def accept(self, vectors: Mapping[Parameter, NDArray[Any]]) -> None:
        """Take note that these gradients lie where they may, and don't overlap each other."""
        for leaf, p in zip(self._leaves, self.parameters, strict=True):
            leaf["known"] = address(vectors[p]) if p in vectors else 0

    def totals(self, name: str, work: Work) -> NDArray[Any]:
        """What a pass has summed up for the parameters of a group: shape (products, tensors)."""
        return self._totals[name][self._places[id(work)], : getattr(work, name).products].T

    def write_totals(self, name: str, work: Work, totals: NDArray[Any]) -> None:
        """Let a step go on with other totals, shaped as `totals` gives them."""
        self._totals[name][self._places[id(work)], : len(totals)] = totals.T

    def totals_of_parameters(self, name: str, work: Work) -> dict[Parameter, Any]:
        """The same sum of the first product over the tensors of each parameter."""
        of_pass: Pass = getattr(work, name)
        return {p: self._totals[name][self._tensors_of[p], 0].sum() for p in of_pass.parameters}

    def variants(self, of_pass: Pass) -> set[Variant]:
        """The spans that a pass calls."""
        return {of_pass.variant(p, self._gradients[p]) for p in of_pass.parameters}

    @property
    def progress(self) -> float | None:
        """How much of the traffic of a step under way is done, between 0 and 1; None if no step is, or it is a short one."""
        traffic = int(self._header["traffic"][0])
        return int(self._progress.sum()) / traffic if self._busy[0] == self._address and self.is_long else None

    def forget_fork(self) -> None:
        """Be ready in a child that was forked during a step of the parent."""
        self._busy[0] = 0

    def compile(self) -> None:
        """Compile all that steps may come to need, with the present number of threads."""
        self.launch.compile()
        self.launch_sums.compile()

    def _keep(self, rows: Sequence[tuple[Any, ...]], dtype: np.dtype[Any]) -> NDArray[Any]:
        self._kept.append(made := table(rows, dtype))
        return made

    def _leaf(self, p: Parameter, zeroes: bool | None, gradient: np.dtype[Any]) -> tuple[int, ...]:
        """The gradient that is expected; ``zeroes`` is None where none is."""
        dtype = complex_of(gradient) if p.is_complex else gradient
        shape = np.array(p.shape, np.int64)
        self._kept += [dtype, shape]
        tensors = self._tensors_of[p]
        flags = p.readable | (WRITEABLE if zeroes else 0)
        place = (len(p.shape), address(shape), flags, p.array.size)
        return (id(dtype), dtype.itemsize, *place, 0, tensors.start, len(tensors), zeroes is not None)

    def _pass(self, name: str) -> Written:
        """Write the table of a pass over the tensors of all groups."""
        rows: list[tuple[int, ...]] = []
        words: list[int] = []
        work = blocks = traffic = 0
        passes = [each for each in (getattr(of_group, name) for of_group in self.works) if each is not None]
        if not passes:
            return Written(address(NO_PASS[name]), 0)
        products = max(each.products for each in passes)
        grain = BLOCK if products else steps.GRAIN
        for each in passes:
            if not products:
                each.require_writable()  # of an optimizer that was loaded parameters may be read-only
            row, row_bytes = address(each.rows), ITEM * each.rows.shape[1]
            for p in each.parameters:
                variant, arrays = each.variant(p, self._gradients[p]), each.operands(p)
                compiled = compiled_span(variant)
                run = coded.runner(each, p, compiled)
                self._kept += [compiled, run, *arrays]
                operands = [(0, 0) if a is None else (address(a), element_of(a).itemsize) for a in arrays]
                operands += each.words(p)
                cost = variant.bytes_per_element
                doubles = (1 + p.is_paired) * (self._gradients[p].itemsize == ITEM)
                begin = 0
                for i, (t, size) in enumerate(zip(self._tensors_of[p], p.tensor_sizes(), strict=True)):
                    size = 0 if p in self._left_out else size
                    place = (run.address, ITEM * len(words), row, t, size, work, cost, blocks)
                    own = [at + begin * item for at, item in operands]
                    words += coded.head(each, p, compiled, i, begin, own)
                    zeroed = ITEM * (len(words) + each.zeroed(p)) if each.zeroes else 0
                    rows.append((*place, zeroed, p.theta.dtype.itemsize == ITEM, doubles))
                    words += own
                    begin += size
                    work += -(-size // grain) * cost
                    blocks += -(-size // BLOCK)
                    traffic += size * cost
                    row += row_bytes if each.is_by_tensor else 0
            self._kept.append(each.rows)
        return Written(self._write(name, rows, words, work, blocks, products), traffic)

    def _write(self, name: str, rows: list[tuple[int, ...]], words: list[int], work: int, blocks: int, products: int) -> int:
        """Where the table of a pass lies."""
        operands, made = np.array(words, np.int64), self._keep(rows, ROW)
        self._rows_of[name] = made
        made["operands"] += address(operands)
        made["zeroed"] += np.where(made["zeroed"], address(operands), 0)
        sums = np.zeros((blocks, products, LANES))
        self._totals[name] = np.zeros((len(self._tensors), products))
        self._kept += [operands, sums]
        of_pass = (address(made), len(rows), work, address(sums), address(self._totals[name]), products)
        return address(self._keep([of_pass], PASS))

    def _groups(self) -> list[tuple[int, ...]]:
        """What is counted and scaled for each group."""
        groups: list[tuple[int, ...]] = []
        first = 0
        for work in self.works:
            passes = (work.update, work.measure) if work.is_scaled else ()
            cells = np.concatenate([NO_CELLS, *(each.scale_cells() for each in passes if each is not None)])
            square_cell = int(work.squares.scale_cells()[0]) if work.squares and work.is_scaled else 0
            count = sum(len(self._tensors_of[p]) for p in work.update.parameters)
            counted = (first, count, address(work.step_count), square_cell, address(cells), len(cells))
            scalars = (address(work.scalars[0]), address(work.scalars[1]), work.scalars[0].size)
            groups.append((*counted, *scalars))
            self._kept.append(cells)
            first += count
        return groups

    def _calls(self, work: Work, is_early: bool) -> list[tuple[int, ...]]:
        """What compiled code computes for a group, before sums or after them: one call for each row of numbers."""
        rows: list[tuple[int, ...]] = []
        for call in work.calls:
            if call.is_early == is_early:
                decided, of_pass, (scalars, new_scalars) = call.decided, call.of_pass, work.scalars
                compiled = compiled_span(decided.decision)
                self._kept += [compiled, decided]
                for i, results in enumerate(of_pass.rows):
                    sums = self.shared_sums if not call.has_own_sums else self._totals["measure"][self._places[id(work)][i]]
                    k = i if call.has_own_scalars else 0
                    moved = (address(scalars[k]), address(new_scalars[k]))
                    numbers = address(decided.numbers) + i * decided.number_bytes
                    at = (compiled.address, address(work.step_count), numbers, address(sums), *moved)
                    rows.append((*at, address(results) + call.offset))
        return rows


NO_CELLS = np.zeros(0, np.int64)


def free(ended: int) -> int:
    """How a call ended, unless it did because another thread takes a step."""
    if ended == steps.BUSY:
        raise BusyError(ONE_AT_A_TIME)
    return ended


def _after_fork() -> None:
    for plan in list(_plans):
        plan.forget_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _numbered(parameters: Sequence[Parameter]) -> dict[Parameter, range]:
    """The tensors of each parameter, counted through."""
    numbered, first = {}, 0
    for p in parameters:
        count = len(p.tensor_sizes())
        numbered[p] = range(first, first + count)
        first += count
    return numbered


def _offsets(p: Parameter) -> list[int]:
    """At which element of the array each tensor begins."""
    parts = 1 + p.is_complex - p.is_paired
    return [begin // parts for begin in itertools.accumulate(p.tensor_sizes(), initial=0)][:-1]
