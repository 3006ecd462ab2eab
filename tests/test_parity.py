"""Side by side with PyTorch and Optax, in float64: the same numbers as theirs, under the conventions that the table sets."""

import os
from operator import attrgetter

import numpy as np
import pytest

from tests.table import TABLE

pytestmark = pytest.mark.peers

STEPS = 20
SHAPES = ((), (1,), (17,), (4, 5), (2, 3, 4))
TOLERANCE = 1e-12  # relative, of the largest element


@pytest.fixture(scope="module")
def torch():
    import torch

    return torch


@pytest.fixture(scope="module")
def optax():
    # JAX reads its platform when it is imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    return optax


def start():
    rng = np.random.default_rng(3)
    return [np.asarray(rng.normal(size=shape)) for shape in SHAPES]


def gradients():
    """For every step, with magnitudes from 1e-3 to 1e3: what eps does where must show."""
    rng = np.random.default_rng(4)
    for scale in np.geomspace(1e-3, 1e3, STEPS):
        yield [np.asarray(scale * rng.normal(size=shape)) for shape in SHAPES]


def assert_equal_paths(row, theirs):
    """Step the row's optimizer along the parameters that another library gave after each step."""
    params = start()
    optimizer = row.make(params)
    for step, (g, expected) in enumerate(zip(gradients(), theirs, strict=True), start=1):
        optimizer.step(g)
        for own, other in zip(params, expected, strict=True):
            assert other.dtype == own.dtype
            error = np.abs(own - other).max() / np.abs(other).max()
            assert error <= TOLERANCE, f"shape {own.shape}, step {step}: relative error {error:.1e}"
    assert step == STEPS


@pytest.mark.parametrize("row", [row for row in TABLE if row.torch], ids=str)
def test_pytorch(row, torch):
    # PyTorch's conventions are fastopt's: eps outside of the root, the first momentum undamped, lr where it is applied.
    name, arguments = row.torch
    params = [torch.nn.Parameter(torch.from_numpy(theta)) for theta in start()]
    optimizer = getattr(torch.optim, name)(params, **arguments)

    def path():
        for g in gradients():
            for p, own in zip(params, g, strict=True):
                p.grad = torch.from_numpy(own)
            optimizer.step()
            yield [p.detach().numpy() for p in params]

    assert_equal_paths(row, path())


@pytest.mark.parametrize("row", [row for row in TABLE if row.optax], ids=str)
def test_optax(row, optax):
    # Optax's AdaGrad and RMSProp have other conventions by default: the table says what was set.
    name, arguments = row.optax
    params = start()
    optimizer = attrgetter(name)(optax)(**arguments)

    def path(params, state):
        for g in gradients():
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
            yield [np.asarray(p) for p in params]

    assert_equal_paths(row, path(params, optimizer.init(params)))
