"""The plan of a step over touched rows: beside the tables of passes, those of the rows and what belongs to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import ALIGNMENT, aligned_zeros
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.per_element import fill_copies
from fastopt.arrays.rows import Touched
from fastopt.engine import rows, steps
from fastopt.engine.launch import Launch
from fastopt.engine.loop import NOISE
from fastopt.engine.tables import ROW, address
from fastopt.step.missed import Missed
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
        self._room: dict[tuple[str, Parameter], NDArray[Any]] = {}
        self._dense_traffic = int(self._header["traffic"][0])
        bytes_of_part = max((self._describe(table, p) for table, p in zip(self._tables, touched, strict=True)), default=0)
        self._scratch = aligned_zeros(bytes_of_part * numba.config.NUMBA_NUM_THREADS, np.uint8)
        self._of_call["tables"], self._of_call["count"] = address(self._tables), len(touched)
        self._of_call["scratch"], self._of_call["scratch_bytes"] = address(self._scratch), bytes_of_part
        self._of_table = dict(zip(touched, self._tables, strict=True))
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
        traffic = self._dense_traffic
        for p, table in self._of_table.items():
            self._fill(table, p, touched[p])
            self._note_missed(table, missed.get(p), p in recorded)
            traffic += self._costs[p] * touched[p].rows.size
        self._of_call["is_grouped"] = 0
        return self._launch(traffic, *arguments)

    def catch_up(self, p: Parameter, missed: Missed, chosen: NDArray[Any] | None) -> None:
        """Let some rows of a table take the steps that they have missed, or all of its rows."""
        table = self._of_table[p]
        ended = steps.INTERRUPTED
        while ended == steps.INTERRUPTED:  # by a signal handler that took a step, or let rows catch up
            step_count, token = self._count[0], self.begin()
            self.write_gradients({}, token)
            for each, other in self._of_table.items():
                self._note_missed(other, missed if each is p else None, False)
            if chosen is None:
                table["heads"] = 0
            else:
                self._fill(table, p, Touched(chosen, NOTHING, 0))
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

    def _note_missed(self, table: Any, missed: Missed | None, is_recorded: bool) -> None:
        """Write which steps rows have missed, if there are some."""
        table["last"], table["is_recorded"] = 0, is_recorded
        for name, value in ({} if missed is None else missed.fields()).items():
            table[name] = value

    def _fill(self, table: Any, p: Parameter, given: Touched) -> None:
        """Write what belongs to the rows of a step."""
        count = given.rows.size
        table["rows"], table["count"], table["gradients"] = address(given.rows), count, address(given.gradients)
        table["sources"] = 0 if given.sources is None else address(given.sources)
        table["weights"] = 0 if given.weights is None else address(given.weights)
        table["bits"] = bits = max(1, int(count - 1).bit_length())
        table["heads"] = address(self._room_for("heads", p, 1 << bits, np.int32))
        size = rows.COLUMNS * (count + numba.config.NUMBA_NUM_THREADS)
        table["entries"] = address(self._room_for("entries", p, size, np.int32))
        table["norms"] = address(self._room_for("norms", p, count, np.float64)) if table["squares"] else 0

    def _room_for(self, name: str, p: Parameter, size: int, dtype: Any) -> NDArray[Any]:
        """Memory that is kept from step to step, and grows if need be."""
        found = self._room.get((name, p))
        if found is None or found.size < size:
            found = self._room[name, p] = np.empty(size + size // 4, dtype)
        return found
