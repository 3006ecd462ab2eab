"""Checkpoints of all ranks: one file of what is replicated, a file of each rank with an index of what is owned."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastopt.mpi.agreement import check_synced, together
from fastopt.mpi.replicated import Replicated
from fastopt.saving import checkpoints
from fastopt.saving.replacing import replacing

FORMAT = "index of fastopt checkpoints"
LONGEST = 1000  # bytes, more than an index has
NOTHING: Mapping[str, Any] = {"count": 0, "sums": {}}


class Gathered:
    """A replicated optimizer as checkpoints see one: with the state of all shards.

    Parameters
    ----------
    optimizer : Replicated
    state : mapping, optional
        To be saved; what is loaded is here, too.
    """

    def __init__(self, optimizer: Replicated, state: Mapping[str, Any] | None = None) -> None:
        self.params, self.state, self.param_groups = optimizer.params, state, ()
        self._accumulation = self

    def state_dict(self, *, copy: bool) -> Any:
        """What was gathered."""
        return self.state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep it."""
        self.state = state_dict

    def saved(self) -> Mapping[str, Any]:
        """Accumulated gradients: none."""
        return NOTHING

    def checked(self, saved: Any) -> tuple[()]:
        """Raise ValueError if there are some."""
        if saved != NOTHING:
            raise ValueError("the checkpoint has accumulated gradients, which replicated parameters can't take")
        return ()

    def go_on(self) -> None:
        """There is nothing to go on with."""


def save(path: checkpoints.Path, optimizer: Any, comm: Any, *, keep_previous: bool = False, **arrays: Any) -> None:
    """Write a checkpoint of all ranks; whatever happens meanwhile, the one before or this one is there as a whole.

    Parameters
    ----------
    path : path
        In a folder that all ranks see. If the optimizer's parameters are replicated, the file is one that `fastopt.load` reads,
        too; if they are owned, it is an index, beside which each rank writes a file.
    optimizer : Replicated or Optimizer
        What `replicated` or `owned` gave.
    comm : mpi4py.MPI.Comm
        The ranks.
    keep_previous : bool, default False
        Whether the checkpoint before stays, as in `fastopt.save`; for replicated parameters only.
    **arrays
        More arrays by names: those of the first rank with replicated parameters, else those of each rank.

    Raises
    ------
    TypeError, ValueError, OSError, RuntimeError
        As `fastopt.save` does; RuntimeError, too, if another rank has failed, or accumulated gradients wait to be taken.
    """
    if isinstance(optimizer, Replicated):
        with together(comm):
            if optimizer.shared._accumulation.count:
                raise RuntimeError("gradients were accumulated: take them by step() first, or discard()")
        gathered = Gathered(optimizer, optimizer.state_dict())
        with together(comm):
            if comm.rank == 0:
                checkpoints.save(path, gathered, keep_previous=keep_previous, **arrays)
        return
    token = comm.bcast(uuid.uuid4().hex if comm.rank == 0 else None)
    own = _of_rank(path, token, comm.rank)
    with together(comm):
        if keep_previous:
            raise ValueError("keep_previous is for replicated parameters: files of parts are removed when new ones are there")
        checkpoints.save(own, optimizer, **arrays)
    with together(comm):
        if comm.rank == 0:
            with replacing(path) as file:
                file.write(json.dumps({"format": FORMAT, "ranks": comm.size, "token": token}).encode())
    for other in own.parent.glob(_of_rank(path, "?" * len(token), comm.rank).name):
        if other != own:  # which no index leads to any more
            other.unlink(missing_ok=True)


def load(path: checkpoints.Path, optimizer: Any, comm: Any, **arrays: Any) -> None:
    """Go on from what `save` has written: with owned parameters by as many ranks, else by any number of them.

    Parameters
    ----------
    path, optimizer, comm
        As `save` takes them.
    **arrays
        To be filled in place, on all ranks.

    Raises
    ------
    TypeError, ValueError, OSError
        As `fastopt.load` does, or if there are other ranks than there were.
    RuntimeError
        If another rank has failed; then what this one has may be the checkpoint's already.
    """
    if isinstance(optimizer, Replicated):
        gathered = Gathered(optimizer)
        with together(comm):
            checkpoints.load(path, gathered, **arrays)
        optimizer.load_state_dict(gathered.state or {})
        return
    with together(comm):
        index = _index(Path(path))
        if index["ranks"] != comm.size:
            raise ValueError(f"{os.fspath(path)} is of {index['ranks']} ranks with parts of their own, not of {comm.size}")
        checkpoints.load(_of_rank(path, index["token"], comm.rank), optimizer, **arrays)
    check_synced(optimizer, comm)


def _of_rank(path: checkpoints.Path, token: str, rank: int) -> Path:
    """The file of a rank."""
    target = Path(os.path.realpath(path))
    return target.with_name(f"{target.name}.{token}.{rank}")


def _index(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            index = json.loads(file.read(LONGEST))
    except (ValueError, RecursionError):
        index = None
    if not isinstance(index, dict) or index.keys() != {"format", "ranks", "token"} or index["format"] != FORMAT:
        raise ValueError(f"{os.fspath(path)} is no index of checkpoints")
    if not str(index["token"]).isalnum():  # which would lead to another folder
        raise ValueError(f"{os.fspath(path)} is no index of checkpoints")
    return index
