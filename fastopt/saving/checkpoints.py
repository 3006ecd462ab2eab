"""Checkpoints: a file with an optimizer, its parameters, and what else a run has in arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.arrays.flat import array_of
from fastopt.arrays.tree import leaves, map_leaves
from fastopt.saving.archive import Archive, storable, write
from fastopt.saving.plain_values import decoded, encoded
from fastopt.saving.replacing import replacing
from fastopt.step.background import Background

Path = str | os.PathLike[str]
Arrays = dict[str, NDArray[Any]]

FORMAT, VERSION = "fastopt checkpoint", 1

_background = Background(niceness=8)  # a sixth of the weight of a thread that steps


def save(path: Path, opt: Any = None, params: Any = None, *, keep_previous: bool = False, **arrays: Any) -> None:
    """Write a checkpoint: an optimizer, its parameters, and other arrays.

    It is one file, which takes the place of `path` when all of it is on the disk: whatever happens until then, a full disk or
    the end of the process, the checkpoint that was there stays. `numpy.load` reads it, too, for it is an ``.npz`` file.

    Parameters
    ----------
    path : path
        Where to write it, in a folder that exists.
    opt : Optimizer, optional
        All that its state dict has, and gradients that `accumulate` has added up.
    params : array, Flat, or list, tuple or dict of them, nested, optional
        By default those of the optimizer.
    keep_previous : bool, default False
        Whether the checkpoint that was there stays, with ``.previous`` at the end of its name.
    **arrays
        More arrays of numbers, or containers of them, by names; a number is taken as an array without dimensions.

    Raises
    ------
    TypeError
        If something can't be saved, such as what a schedule of one's own remembers.
    ValueError
        If there is nothing to save, or an array has no proper name.
    RuntimeError
        As `Optimizer.state_dict` does.
    OSError
        If the file can't be written, or `path` is a folder or a device.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastopt
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> w = np.ones(3)
    >>> opt = fastopt.Adam(w)
    >>> opt.step(np.ones(3))
    >>> fastopt.save(path, opt, epoch=7)
    >>> other, epoch = fastopt.Adam(np.zeros(3)), np.array(0)
    >>> fastopt.load(path, other, epoch=epoch)
    >>> bool(np.all(other.params == w)), other.step_count, int(epoch)
    (True, 1, 7)
    """
    _write(path, keep_previous, *_contents(opt, params, arrays))


def save_async(path: Path, opt: Any = None, params: Any = None, *, keep_previous: bool = False, **arrays: Any) -> Future[None]:
    """Write a checkpoint of what is there now, while the next steps are taken.

    All of it is copied at once. Then a thread in the background writes it, after those that were asked for before; a process
    that ends waits for it.

    Parameters
    ----------
    path, opt, params, keep_previous, **arrays
        As `save` takes them.

    Returns
    -------
    concurrent.futures.Future
        Its ``result()`` waits until the checkpoint is on the disk, and raises what writing has raised.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `save` does.
    """
    description, views = _contents(opt, params, arrays)
    copies = {name: np.array(array, order="K") for name, array in views.items()}
    return _background.submit(_write, path, keep_previous, description, copies)


def load(path: Path, opt: Any = None, params: Any = None, **arrays: Any) -> None:
    """Fill an optimizer, its parameters and other arrays in place with what a checkpoint has.

    Then the run goes on with the same bits. Schedules that are plain functions are not saved: the optimizer keeps its own. No
    code is run that the file holds.

    Parameters
    ----------
    path : path
        Of a file that `save` or `save_async` has written.
    opt : Optimizer, optional
        Of the same class, with parameters nested as they were, of the same shapes and dtypes; hyper-parameters are those of the
        checkpoint afterwards.
    params : array, Flat, or list, tuple or dict of them, nested, optional
        By default those of the optimizer.
    **arrays
        More arrays, or containers of them, by the names under which they were saved; the file may have others.

    Raises
    ------
    OSError
        If the file can't be opened.
    TypeError, ValueError
        If it is no checkpoint, or damaged, or has something else than what is to be filled. Nothing is changed then.
    RuntimeError
        As `Optimizer.state_dict` does.
    """
    named = _named(opt, params, arrays)
    with Archive(path) as archive:
        saved = _checked_description(os.fspath(path), archive.description)
        pairs = [(array, _matching(name, array, archive.array(name), saved["dtypes"])) for name, array in named.items()]
        if opt is not None:
            if saved["optimizer"] is None:
                raise ValueError(f"{os.fspath(path)} has no optimizer")
            sums = opt._accumulation.checked(decoded(saved["accumulated"], archive.array))
            opt.load_state_dict(decoded(saved["optimizer"], archive.array))
        # From here on nothing is refused.
        for array, values in pairs:
            array[...] = values
        if opt is not None:
            opt._accumulation.go_on(*sums)
            for group in opt.param_groups:
                group.fill_copies()


def _contents(opt: Any, params: Any, others: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a checkpoint, not copied."""
    named = _named(opt, params, map_leaves(_number_as_array, others))
    arrays = dict(named)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "dtypes": {name: str(array.dtype) for name, array in named.items()},
        "optimizer": None if opt is None else encoded(opt.state_dict(copy=False), "optimizer", arrays),
        "accumulated": None if opt is None else encoded(opt._accumulation.saved(), "accumulated", arrays),
    }
    for name, array in arrays.items():
        storable(name, array)
    return description, arrays


def _number_as_array(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, (np.generic, int, float)) else leaf


def _write(path: Path, keep_previous: bool, description: Mapping[str, Any], arrays: Arrays) -> None:
    with replacing(path, keep_previous) as file:
        write(file, description, arrays)


def _named(opt: Any, params: Any, arrays: Mapping[str, Any]) -> Arrays:
    """All arrays that aren't the optimizer's own, by their names."""
    if params is None and opt is not None:
        params = opt.params
    if wrong := [name for name in arrays if not name.isidentifier()]:
        raise ValueError(f"arrays must have names of letters, digits and underscores, got {wrong[0]!r}")
    trees = dict(arrays) if params is None else {"params": params, **arrays}
    named = {name: array_of(leaf) for key, tree in trees.items() for name, leaf in leaves(tree, key)}
    if not named:
        raise ValueError("there is nothing to save or load: give an optimizer, parameters or other arrays")
    if wrong := [name for name, array in named.items() if not isinstance(array, np.ndarray) or hasattr(array, "mask")]:
        raise TypeError(f"{wrong[0]} must be a NumPy array, got {type(named[wrong[0]]).__name__}")
    return {name: np.asarray(array) for name, array in named.items()}  # of another class it may refuse to be filled


def _checked_description(path: str, description: Any) -> Mapping[str, Any]:
    """The description, if it is one of a checkpoint of this version."""
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of fastopt")
    if description.get("version") != VERSION:
        raise ValueError(f"{path} must have the version {VERSION}, got {description.get('version')!r}")
    if not {"dtypes", "optimizer", "accumulated"} <= description.keys() or not isinstance(description["dtypes"], dict):
        raise ValueError(f"{path} is a damaged checkpoint: parts of its description are missing")
    return description


def _matching(name: str, array: NDArray[Any], saved: NDArray[Any], dtypes: Mapping[str, Any]) -> NDArray[Any]:
    """What is to be copied to an array, in its dtype."""
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but is to be filled")
    if dtypes.get(name) != str(array.dtype) or saved.dtype != storable(name, array).dtype:
        raise TypeError(f"{name} must be of {dtypes.get(name)} as in the checkpoint, got {array.dtype}")
    if saved.shape != array.shape:
        raise ValueError(f"{name} must have the shape {saved.shape} as in the checkpoint, got {array.shape}")
    return saved.view(array.dtype)
