"""What both files of tests wrap optimizers with."""

import pytest


@pytest.fixture
def wrap(torch):
    import fastopt.torch

    return fastopt.torch.wrap
