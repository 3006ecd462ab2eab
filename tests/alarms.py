"""Exceptions that come up at any time, as those of signal handlers do."""

import signal
import sys


class AlarmError(Exception):
    """What comes up."""


def _alarm(number, frame):
    if frame.f_globals.get("__name__", "").startswith("coverage."):  # the lock that coverage.py takes there would stay locked
        signal.setitimer(signal.ITIMER_REAL, 1e-4)
    else:
        raise AlarmError


def interrupted(seconds, act):
    """Call a function, and let an exception come up after some seconds; whether it did, before the function came to its end."""
    before, hook = signal.signal(signal.SIGALRM, _alarm), sys.unraisablehook
    # What comes up in a finalizer, of something that is freed meanwhile, Python drops.
    sys.unraisablehook = lambda dropped: None if dropped.exc_type is AlarmError else hook(dropped)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except AlarmError:
        return True
    finally:
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
    return False
