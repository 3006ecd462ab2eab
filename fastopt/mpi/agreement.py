"""Ranks that have to agree: an error on one of them, or a difference, is an error on all."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastopt.arrays.flat import array_of
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import leaves
from fastopt.optimizer import Optimizer


@contextlib.contextmanager
def together(comm: Any) -> Iterator[dict[str, Any]]:
    """A ``with`` block after which all ranks go on, or none.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        The ranks; None where there is one alone.

    Yields
    ------
    dict
        For what must be the same on all ranks at the end of the block, by what it is called; values that have a repr.

    Raises
    ------
    RuntimeError
        If another rank has raised an exception within the block.
    ValueError
        If the ranks have different values.
    """
    same: dict[str, Any] = {}
    if comm is None:
        yield same
        return
    own: BaseException | None = None
    try:
        yield same
    except BaseException as error:
        own = error
    everything = comm.allgather((None if own is None else f"{type(own).__name__}: {own}", same))
    if own is not None:
        raise own
    for rank, (failure, _) in enumerate(everything):
        if failure is not None:
            raise RuntimeError(f"rank {rank} has failed; {failure}")
    first = everything[0][1]
    for rank, (_, other) in enumerate(everything):
        for what in first | other:
            if repr(first.get(what)) != repr(other.get(what)):
                raise ValueError(
                    f"{what} must be the same on all ranks; rank 0 has {first.get(what)!r}, rank {rank} has {other.get(what)!r}"
                )


def check_synced(optimizer: Any, comm: Any = None) -> None:
    """Raise an error on all ranks unless they have the same hyper-parameters and step counters, and the same parameters.

    Steps of owned parameters that would exchange other sums than before are refused: where `clip_norm` or `nonfinite` was off
    or is now, `cautious`, `frozen` or the number of groups was changed. Call this on all ranks then, and the steps exchange
    these from now on.

    Parameters
    ----------
    optimizer : Optimizer or Replicated
        What `owned` or `replicated` gave. The parameters of the latter are compared, too, by checksums.
    comm : mpi4py.MPI.Comm, optional
        By default the optimizer's own.

    Raises
    ------
    ValueError
        If they differ; the message names a rank and the difference.
    RuntimeError
        If another rank has failed.
    """
    shared = getattr(optimizer, "shared", optimizer)
    with together(comm or shared._whole["reduce"].comm) as same:
        same |= described(shared)
        if shared is not optimizer:
            same |= checksums(optimizer.params)
    if shared is optimizer:
        shared._stepping.agree(shared)


def described(optimizer: Optimizer) -> dict[str, Any]:
    """What all ranks of an optimizer have in common."""
    return options(optimizer) | {name: getattr(optimizer, name) for name in ("step_count", "skipped_steps")}


def options(optimizer: Optimizer) -> dict[str, Any]:
    """What they have in common but for the counters, which change from step to step."""
    groups = optimizer.param_groups
    same: dict[str, Any] = {"the class": type(optimizer).__name__, "the number of groups": len(groups)}
    same |= {name: getattr(optimizer, name) for name in ("clip_norm", "nonfinite")}
    for i, group in enumerate(groups):
        same |= {f"{key} of group {i}": comparable(value) for key, value in group.hyper.items()}
        if group.measure is not None and (optimizer.per_tensor or group.hyper["cautious"]):
            same[f"the tensors of group {i}"] = [p.name for p in group.parameters]
    return same


def named_arrays(params: Any) -> Mapping[str, Any]:
    """The arrays of parameters by their names."""
    arrays = {name: array_of(leaf) for name, leaf in leaves(params, "params")}
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def checksums(params: Any) -> Mapping[str, Any]:
    """Of each array of parameters, by its name."""
    arrays = named_arrays(params).items()
    return {f"the checksum of {name}": zlib.crc32(array.ravel(order="K").view(np.uint8)) for name, array in arrays}


def comparable(value: Any) -> Any:
    """Something whose repr is the same on all ranks that have the same."""
    if callable(value):
        is_elsewhere = " at 0x" in repr(value)  # as functions are, on each rank
        return getattr(value, "__qualname__", type(value).__qualname__) if is_elsewhere else value
    return "an array" if is_tree(value) and named_arrays(value) else value
