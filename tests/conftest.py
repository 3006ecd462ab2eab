"""Before and around all tests: threads, and how many examples Hypothesis tries."""

import os

import pytest
from hypothesis import settings

# Numba reads it once, when it is imported. Four threads show every way to split an array, on two cores as well.
os.environ["NUMBA_NUM_THREADS"] = str(max(4, int(os.environ.get("NUMBA_NUM_THREADS", os.cpu_count() or 1))))

settings.register_profile("fastopt", max_examples=100, deadline=None)  # an example may compile a kernel
settings.register_profile("fastopt-ci", settings.get_profile("fastopt"), derandomize=True, database=None)
settings.load_profile("fastopt-ci" if os.environ.get("CI") else "fastopt")


@pytest.fixture(autouse=True)
def _thread_count():
    """Give the next test the number of threads that this one found."""
    import fastopt

    before = fastopt.get_num_threads()
    yield
    fastopt.set_num_threads(before)
