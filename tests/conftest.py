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


@pytest.fixture(scope="session")
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
