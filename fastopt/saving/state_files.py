"""States that lie in a file, by the option ``state_path``: what else is in it, so that a later optimizer goes on.

The states come first, as memory has them. Behind them, while nobody steps, lies an archive like that of a checkpoint, with all
that state dicts have besides, and checksums of the states. An optimizer that takes the file over spoils the archive before its
first step, and writes another one when it is closed. So a file without a sound one is of a run that was broken off, with states
that may be of no step at all.
"""

from __future__ import annotations

import json
import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.layout import PAGE
from fastopt.arrays.mapped import MappedFile
from fastopt.arrays.parameters import Parameter
from fastopt.saving.archive import Archive, write
from fastopt.saving.plain_values import decoded, encoded

FORMAT, VERSION = "fastopt states", 1

CLOSED = "the optimizer was closed, so that its states are for others to go on from; make another one"
FORKED = "the optimizer's states are in a file of the parent process, which alone may step it"

_open: weakref.WeakSet[Any] = weakref.WeakSet()


def go_on(optimizer: Any) -> None:
    """Go on from what the file of an optimizer has, or begin with it; without a file do nothing.

    Raises
    ------
    ValueError
        If the file has anything else than the states of such an optimizer, with these parameters. It is as it was then.
    """
    file: MappedFile | None = optimizer._model.file
    if file is None:
        return
    end: weakref.finalize[..., Any] | None = None
    try:
        if not file.is_new:
            _load(optimizer, file)
        saved = optimizer.state_dict(copy=False)
        longest = dict.fromkeys(_numbers(saved["state"], optimizer._model.parameters), 2**32 - 1)
        description, arrays = _contents(saved, longest)
        room = 2 * len(json.dumps(description, indent=1)) + sum(a.nbytes + PAGE for a in arrays.values()) + PAGE
        stand_in = object.__new__(type(optimizer))
        stand_in.__dict__ = optimizer.__dict__  # the same, so that it is what the optimizer was when this is no more
        _open.add(optimizer)
        end = weakref.finalize(optimizer, _close_unasked, stand_in)
        file.begin(room)  # last: from then on there is a file to close, whatever comes up
    except BaseException:
        if end is not None:
            end.detach()
        file.release()
        raise


def close(self: Any) -> None:
    """Leave the states of `state_path` for a later optimizer to go on from; this one takes no more steps.

    Its end, and that of the process, do the same, but for the errors. Without `state_path` there is nothing to close.

    Raises
    ------
    RuntimeError
        While the parameters are swapped with their averages; in a forked child, where the optimizer takes no steps, either.
    OSError
        If the file can't be written, or was removed. The optimizer is as it was then, to be closed again, or saved.
    """
    file: MappedFile | None = self._model.file
    if file is None:
        return
    if self._barred != CLOSED:
        saved = self.state_dict(copy=False)
        contents = _contents(saved, _checksums(_numbers(saved["state"], self._model.parameters)))
        with file.finishing() as stream:
            write(stream, *contents)
        self._barred = CLOSED  # before anybody else may have the file
    file.let_go()  # here, for an interrupt may have come before the last time


def _close_unasked(stand_in: Any) -> None:
    """Close the file of an optimizer that is no more."""
    if stand_in._barred != FORKED:
        try:
            close(stand_in)
        finally:
            stand_in._model.file.let_go()


def _bar_children() -> None:
    """Let no forked child change the states of its parent."""
    for optimizer in _open:
        optimizer._barred = FORKED


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_bar_children)


def _contents(saved: Mapping[str, Any], checksums: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and the arrays of the archive."""
    arrays: dict[str, NDArray[Any]] = {}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "states": _described(saved["state"]),
        "checksums": checksums,
        "optimizer": encoded({**saved, "state": {}}, "optimizer", arrays),
    }
    return description, arrays


def _load(optimizer: Any, file: MappedFile) -> None:
    own = optimizer.state_dict(copy=False)["state"]
    try:
        archive = Archive(file.path)
    except ValueError as error:
        raise ValueError(
            f"state_path must be a file with which an optimizer was closed, but {file.path} is another one, or that of a run "
            f"that was broken off, whose states may be of no step at all: {error}"
        ) from None
    with archive:
        found = archive.description
        if not isinstance(found, dict) or (found.get("format"), found.get("version")) != (FORMAT, VERSION):
            raise ValueError(f"state_path must be a file of states, but {file.path} is none, or of another version")
        if found.get("states") != (here := _described(own)):
            raise ValueError(f"state_path must have the states of {file.path}: {_difference(found.get('states'), here)}")
        if found.get("checksums") != (sums := _checksums(_numbers(own, optimizer._model.parameters))):
            difference = _difference(found.get("checksums"), sums)
            raise ValueError(
                f"state_path must have the numbers with which {file.path} was closed: the checksum of {difference}"
            )
        saved = decoded(found.get("optimizer"), archive.array)
        optimizer.load_state_dict({**saved, "state": own} if isinstance(saved, dict) else saved)


def _named(states: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {f"{state} of {name}": array for state, arrays in states.items() for name, array in arrays.items()}


def _described(states: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, str]:
    """Dtype and shape of each state of each parameter."""
    return {name: f"{array.dtype} {array.shape}" for name, array in _named(states).items()}


def _numbers(states: Mapping[str, Mapping[str, NDArray[Any]]], parameters: Sequence[Parameter]) -> dict[str, NDArray[Any]]:
    """All that must be as it was, parameters and their states, by what they are called: vectors."""
    of_states = {name: array.ravel(order="K") for name, array in _named(states).items()}
    return {p.name: p.theta for p in parameters} | of_states


def _checksums(vectors: Mapping[str, Any]) -> dict[str, int]:
    return {name: zlib.crc32(vector.view(np.uint8)) for name, vector in vectors.items()}


def _difference(found: Any, here: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"{found!r:.100}"
    key = next((key for key in (*here, *found) if here.get(key) != found.get(key)), "")
    return f"{key or 'their order'} was {found.get(key)!r:.100}, and here is {here.get(key)!r}"
