"""Side by side with PyTorch and Optax, in float64: the same numbers as theirs, under the conventions that the table sets."""

import pytest

from tests.peers import assert_equal_paths, optax_path, torch_path
from tests.table import TABLE

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("row", [row for row in TABLE if row.torch], ids=str)
def test_pytorch(row, torch):
    assert_equal_paths(row.make, torch_path(torch, *row.torch))


@pytest.mark.parametrize("row", [row for row in TABLE if row.optax], ids=str)
def test_optax(row, optax):
    assert_equal_paths(row.make, optax_path(optax, *row.optax))
