"""The plan of a step over touched rows: beside the tables of passes, those of the rows and what belongs to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import ALIGNMENT, aligned_zeros
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.per_element import fill_copies
from fastopt.arrays.rows import Touched
from fastopt.engine import rows, steps
from fastopt.engine.launch import Launch
from fastopt.engine.loop import ITEM, NOISE
from fastopt.engine.tables import ROW, address
from fastopt.step.missed_steps import Missed
from fastopt.step.model import Model
from fastopt.step.passes import Pass
from fastopt.step.plan import Plan, Work, free

NOTHING: NDArray[Any] = np.zeros(0)


class RowPlan(Plan):
    """What steps go through that touch some rows of some parameters.

    Parameters
    ----------
    model : Model
    works : sequence of Work
        Of the groups that are stepped.
    gradients : mapping
        The dtype of each parameter's gradient.
    touched : sequence of Parameter
        Those of which only some rows are stepped.
    dense : sequence of Parameter
        Those that are stepped as a whole; the others stand still.
    options : sequence
        What `Plan` takes besides.
    """

    def __init__(
        self,
        model: Model,
        works: Sequence[Work],
        gradients: Mapping[Parameter, np.dtype[Any]],
        touched: Sequence[Parameter],
        dense: Sequence[Parameter],
        options: Mapping[str, Any],
    ) -> None:
        left_out = set(model.parameters).difference(dense)
        super().__init__(model.parameters, works, model.memory, gradients, left_out=left_out, **options)
        self._tables = np.zeros(len(touched), rows.TABLE)
        self._of_call = np.zeros(1, rows.TOUCHED)
        self._costs: dict[Parameter, int] = {}  # bytes that a row moves
        self._launches: dict[int, Launch] = {}
        self._dense_traffic = int(self._header["traffic"][0])
        bytes_of_part = max((self._describe(table, p) for table, p in zip(self._tables, touched, strict=True)), default=0)
        self._scratch = aligned_zeros(bytes_of_part * numba.config.NUMBA_NUM_THREADS, np.uint8)
        self._of_call["tables"], self._of_call["count"] = address(self._tables), len(touched)
        self._of_call["scratch"], self._of_call["scratch_bytes"] = address(self._scratch), bytes_of_part
        has_norms = map(bool, self._tables["squares"])
        self._buckets = {p: _buckets(0, has_norms=own) for p, own in zip(touched, has_norms, strict=True)}
        self._of_step = self._tables.view(np.int64).reshape(len(touched), rows.TABLE.itemsize // ITEM)[:, -len(rows.OF_STEP) :]
        self._copies = {p: p.copy for p in touched}
        self._kept.append(touching := rows.touching())
        self._header["touched"], self._header["touching"] = address(self._of_call), touching.address

    def _describe(self, table: Any, p: Parameter) -> int:
        """Write what is the same in all steps; how many bytes a part needs for the blocks."""
        work = next(work for work in self.works if p in work.update.parameters)
        table["limit"], table["width"] = p.shape[0], p.width
        # A state of rows needs whole ones.
        table["longest"] = max(1, p.width if work.update.of_rows else min(p.width, rows.BLOCK))
        table["numbers"] = p.theta.size // max(1, p.shape[0])
        table["is_double"] = self._gradients[p] == np.float64
        variant = work.update.variant(p, self._gradients[p])
        self._costs[p] = variant.bytes_per_element * p.width
        table["updated"], table["words"] = 1 + len(variant.states), len(work.update.words(p))
        table["update"], table["arrays"], table["bytes"], bytes_of_blocks = self._pass_over("update", work.update, p)
        table["noise"] = int(table["arrays"]) + NOISE - 1 if variant.stochastic else -1
        if work.squares is not None:
            table["squares"], table["squared_arrays"], table["squared_bytes"], _ = self._pass_over("squares", work.squares, p)
        self._kept.append(zeros := np.zeros(table["numbers"], self._gradients[p]))
        table["zeros"] = address(zeros)
        return -(-(rows.BEFORE_ARRAYS + bytes_of_blocks) // ALIGNMENT) * ALIGNMENT

    def _pass_over(self, name: str, of_pass: Pass, p: Parameter) -> tuple[int, int, int, int]:
        """Where its row lies, how many arrays it takes, where the bytes of a row of each are, and bytes of the blocks."""
        made, count = self._rows_of[name], max(1, p.shape[0])
        at = int(np.flatnonzero(made["tensor"] == self._tensors_of[p].start)[0])
        arrays = [0 if a is None else a.nbytes // count for a in of_pass.operands(p)]
        gradient = of_pass.variant(p, self._gradients[p]).gradient.itemsize * p.width
        self._kept.append(every := np.array([*arrays, gradient], np.int64))
        pieces = -(-max(rows.BLOCK, p.width if of_pass.of_rows else 0) // max(1, p.width))  # rows of a block, if they are whole
        bytes_of_blocks = sum(pieces * int(each) + rows.GAP for each in every)
        return address(made) + at * ROW.itemsize, len(arrays), address(every), bytes_of_blocks

    def run_rows(
        self,
        touched: Mapping[Parameter, Touched],
        missed: Mapping[Parameter, Missed],
        recorded: Collection[Parameter],
        *arguments: Any,
    ) -> int:
        """Take a step with these rows, of some tables after the steps that they have missed; what others take is known.

        The steps of those that are recorded are missed by other rows. Arguments are the token, the scale, how many steps there
        were before, and phases.
        """
        self._write_tables(touched, missed, recorded)
        traffic = self._dense_traffic + sum(cost * touched[p].rows.size for p, cost in self._costs.items())
        self._of_call["is_grouped"] = 0
        return self._launch(traffic, *arguments)

    def catch_up(self, p: Parameter, missed: Missed, chosen: NDArray[Any] | None) -> None:
        """Let some rows of a table take the steps that they have missed, or all of its rows."""
        ended = steps.INTERRUPTED
        while ended == steps.INTERRUPTED:  # by a signal handler that took a step, or let rows catch up
            step_count, token = self._count[0], self.begin()
            self.write_gradients({}, token)
            self._write_tables({} if chosen is None else {p: Touched(chosen, NOTHING, 0)}, {p: missed}, ())
            count = p.shape[0] if chosen is None else chosen.size
            traffic = count * self._costs[p] * int(missed.taken[0])
            ended = self._launch(traffic, token, 1.0, step_count, steps.MEASURES)
        if p.copy is not self._copies[p]:  # but another one by now
            fill_copies([p])

    def _launch(self, traffic: int, token: int, scale: float, count: int, phases: int) -> int:
        self._header["traffic"] = traffic
        size = traffic.bit_length()
        if size not in self._launches:
            self._launches[size] = Launch(traffic, self.threads)
        return free(self._launches[size](self._address, 0, scale, count, token, phases))

    def _write_tables(
        self, touched: Mapping[Parameter, Touched], missed: Mapping[Parameter, Missed], recorded: Collection[Parameter]
    ) -> None:
        """Write what belongs to one step: the rows of each table, and the steps that they have missed, if there are some."""
        written = [
            (
                *(self._of_rows(p, touched[p]) if p in touched else NO_ROWS),
                *(missed[p].fields if p in missed else NONE_MISSED),
                p in recorded,
            )
            for p in self._buckets
        ]
        self._of_step[...] = np.array(written, np.int64).reshape(self._of_step.shape)

    def _of_rows(self, p: Parameter, given: Touched) -> tuple[int, ...]:
        """Where everything lies that belongs to these rows, in the order of `rows.OF_STEP`."""
        count, buckets = given.rows.size, self._buckets[p]
        if count > buckets.most:
            buckets = self._buckets[p] = _buckets(count + count // 4, has_norms=buckets.places[-1] != 0)
        sources, weights = (0 if each is None else address(each) for each in (given.sources, given.weights))
        return address(given.rows), count, address(given.gradients), sources, weights, _bits(count), *buckets.places


NO_ROWS, NONE_MISSED = (0,) * 9, (0,) * 5


class Buckets(NamedTuple):
    """Where duplicates among the rows of a table are found, up to so many rows: memory that is kept from step to step."""

    most: int
    places: tuple[int, int, int]  # of heads, entries, and norms of rows, as `rows.OF_STEP` has them
    kept: list[NDArray[Any]]


def _buckets(most: int, has_norms: bool) -> Buckets:
    size = rows.COLUMNS * (most + numba.config.NUMBA_NUM_THREADS)
    kept = [np.empty(1 << _bits(most), np.int32), np.empty(size, np.int32), np.empty(most if has_norms else 0)]
    heads, entries, norms = map(address, kept)
    return Buckets(most, (heads, entries, norms if has_norms else 0), kept)


def _bits(count: int) -> int:
    """How many bits the numbers of the buckets for so many rows have."""
    return max(1, (count - 1).bit_length())
