"""Disks that are full."""

import contextlib
import resource


@contextlib.contextmanager
def disk_of(size):
    """A ``with`` block in which no file of this process may have more bytes: a write beyond is an error, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
