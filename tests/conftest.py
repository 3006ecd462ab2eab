"""Before and around all tests: threads, the kernel cache, and which tests run (see ``tests/selection.py``)."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.selection import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

# Numba reads all of these once, when it is imported. Four threads show every way to split an array, on two cores as well.
os.environ["NUMBA_NUM_THREADS"] = str(max(4, int(os.environ.get("NUMBA_NUM_THREADS", os.cpu_count() or 1))))

# Threads that wait for work would spin on the cores that the other workers need: a third of the time of parallel steps.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# One folder for all workers, for the processes that tests start, and for later runs; the package's own cache stays as it is.
KERNELS = Path(__file__).parents[1] / ".kernels"
os.environ.setdefault("NUMBA_CACHE_DIR", str(KERNELS))

MONTH = 30 * 24 * 3600


def pytest_sessionstart(session):
    """Remove the kernels of sources that are gone: a kernel's name has a digest of its code, so they are never found again."""
    for path in KERNELS.rglob("*.nb?") if not hasattr(session.config, "workerinput") else ():
        if path.stat().st_mtime < time.time() - MONTH:
            path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def _threads():
    """Give the next test the number of threads and the threshold that this one found."""
    import fastopt

    count, threshold = fastopt.get_num_threads(), fastopt.get_parallel_threshold()
    yield
    fastopt.set_num_threads(count)
    fastopt.set_parallel_threshold(threshold)


@pytest.fixture
def package(tmp_path):
    """A copy of the package that a test may edit, in a folder to run in."""
    source = Path(__file__).parents[1] / "fastopt"
    shutil.copytree(source, tmp_path / "fastopt", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def torch():
    import torch

    # PyTorch keeps numbers such as NAdam's product in its default dtype, whatever that of the parameters is.
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def optax():
    # JAX reads its platform when it is imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax
    import optax.contrib

    jax.config.update("jax_enable_x64", True)
    return optax
