"""What goes on in forked children."""

import os
import signal
import warnings


def in_a_fork(function):
    """The bytes that a function returns in a forked child; none if it fails there, or hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads is what this is about
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            os.write(write, function())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    return found
