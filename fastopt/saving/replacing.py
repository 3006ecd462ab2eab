"""A file that takes the place of another one as a whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastopt.arrays.mapped import errors_of

if sys.platform != "win32":
    import fcntl

PREVIOUS = ".previous"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], keep_previous: bool = False) -> Iterator[BinaryIO]:
    """A new file, which becomes `path` at the end of a ``with`` block, when all of it is on the disk.

    Until then, and after an exception, all that `path` shows is the file that was there before. A process that is killed leaves
    a hidden file beside it, which the next one removes.

    Parameters
    ----------
    path : path
        In a folder that exists; where it is a link, what it leads to is replaced.
    keep_previous : bool, default False
        Whether the file that was there stays beside it, with ``.previous`` at the end of its name.

    Yields
    ------
    file
        Opened for writing bytes.

    Raises
    ------
    OSError
        If the file can't be made or written, or `path` is there and is no file: a folder, or a device.
    """
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "something other than a file is there", os.fspath(path))
    begin, end = f".{target.name}.", ".part"
    # In the same folder, for no file system renames across folders of others.
    temporary = target.with_name(f"{begin}{uuid.uuid4().hex}{end}")
    with errors_of(path):
        try:
            with open(temporary, "xb") as file:
                _lock(file)
                for other in target.parent.glob("*" + end):
                    if other.name.startswith(begin) and other != temporary:
                        _remove_if_left(other)
                yield file
                file.flush()
                os.fsync(file.fileno())
                if keep_previous and target.exists():
                    _keep(target)
                if sys.platform == "win32":  # where open files can't be renamed, and there are no locks to hold until then
                    file.close()
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    _sync_folder(target.parent)


def hand_over(file: BinaryIO) -> None:
    """Let the disk begin with what was written so far, so that less is left for the end, and leave the memory to others."""
    if hasattr(os, "posix_fadvise"):
        file.flush()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _keep(target: Path) -> None:
    """Give a file a second name, in the place of what has it."""
    link = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    os.link(target, link)
    os.replace(link, target.with_name(target.name + PREVIOUS))


def _lock(file: BinaryIO) -> bool:
    """Tell others that a process writes the file, until it is closed; whether nobody else has said so."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or the file system has no locks
        return False
    return True


def _remove_if_left(path: Path) -> None:
    """Remove a file that nobody writes to any more."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if _lock(file):
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    if sys.platform != "win32":  # where folders can't be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
