"""Refused input: an error that says what is wrong, and nothing changed."""

import contextlib
import copy

import numpy as np
import pytest


def snapshot(opt):
    """Parameters, hyper-parameters, state and step counter, copied."""

    def plain(items):
        return {key: getattr(value, "tree", value) for key, value in items.items()}

    return copy.deepcopy(([plain(group) for group in opt.param_groups], plain(opt.state), opt.step_count))


@contextlib.contextmanager
def refused(error, *words, opt=None):
    """Require an error whose message has all the words, and an optimizer that is as before."""
    before = opt and snapshot(opt)
    with pytest.raises(error) as caught:
        yield
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    if opt:
        np.testing.assert_equal(snapshot(opt), before)
