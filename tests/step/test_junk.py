"""What nobody should hand over, in any place: a TypeError or a ValueError, and nothing changed; or it is right after all."""

import array
import contextlib
import copy
import datetime
import decimal
import fractions

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from tests.refusal import snapshot


class Liar(np.ndarray):
    """An array that says that it has another shape."""

    @property
    def shape(self):
        return (3,)


class Raising:
    """An object that can't be asked for anything."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array")

    def __float__(self):
        raise RuntimeError("no number")

    def __len__(self):
        raise OSError("no length")


def endless():
    items = [np.ones(3)]
    items.append(items)
    return items


LARGE = np.zeros(8)
JUNK = {
    "nothing": None,
    "a type": np.ndarray,
    "a word": "abc",
    "bytes": b"\0" * 24,
    "a byte array": bytearray(24),
    "a set": {1.0, 2.0},
    "a mapping": {"params": 1.0},
    "numbers": [1.0, 2.0, 3.0],
    "an iterator": iter([1.0]),
    "a range": range(3),
    "itself": endless(),
    "an array of Python's": array.array("d", [1.0, 2.0, 3.0]),
    "a view of memory": memoryview(np.ones(3)),
    "an object": object(),
    "raising": Raising(),
    "a fraction": fractions.Fraction(1, 3),
    "a decimal": decimal.Decimal("0.1"),
    "a date": datetime.date(2000, 1, 1),
    "a complex number": 1j,
    "a large integer": 10**400,
    "true": True,
    "infinity": float("inf"),
    "objects": np.array([1.0, None, "a"], object),
    "words": np.array(["a", "b", "c"]),
    "times": np.ones(3, "m8[s]"),
    "records": np.zeros(3, [("a", "f8"), ("b", "f4")]),
    "integers": np.ones(3, int),
    "bools": np.ones(3, bool),
    "complex numbers": np.ones(3, complex),
    "long doubles": np.ones(3, np.longdouble),
    "other bytes first": np.ones(3, np.dtype("f8").newbyteorder()),
    "no dimensions": np.array(1.0),
    "a scalar of NumPy's": np.float32(0.5),
    "empty": np.zeros(0),
    "other shape": np.ones((3, 1)),
    "many dimensions": np.ones((1,) * 20),
    "one number thrice": np.broadcast_to(np.ones(1), (3,)),
    "backwards": LARGE[2::-1],
    "every other": LARGE[:6:2],
    "unaligned": np.frombuffer(b"\0" * 25, np.uint8)[1:].view(np.float64),
    "masked": np.ma.masked_array(np.ones(3), [False, True, False]),
    "an array of records": np.zeros(3).view(np.recarray),
    "a liar": np.ones(5).view(Liar),
}


def made():
    return fastopt.Adam({"a": np.arange(3.0), "b": [np.ones((2, 2))]}, ema_decay=0.5)


def spoilt(tree, place, junk):
    """A container with junk in one of its places: itself, an item, or an item of an item."""
    if place == 0 or not tree:
        return junk
    tree = copy.copy(tree)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[place % len(keys)]
    item = tree[key]
    tree[key] = spoilt(item, place // 2, junk) if isinstance(item, (dict, list)) else junk
    return tree


GRADIENTS = {"a": np.ones(3), "b": [np.ones((2, 2))]}
USES = {
    "step": lambda opt, spoil: opt.step(spoil(GRADIENTS)),
    "scale": lambda opt, spoil: opt.step(GRADIENTS, spoil(0.0)),
    "accumulate": lambda opt, spoil: opt.accumulate(spoil(GRADIENTS)),
    "norm": lambda opt, spoil: opt.norm(spoil(GRADIENTS)),
    "a state dict": lambda opt, spoil: opt.load_state_dict(spoil(opt.state_dict())),
    "a group": lambda opt, spoil: opt.add_param_group(spoil({"params": [np.ones(3)], "lr": 0.1})),
    "other arrays": lambda opt, spoil: opt.rebind(spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "rates": lambda opt, spoil: setattr(opt, "lr", spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "bounds": lambda opt, spoil: setattr(opt, "bounds", spoil([0.0, {"a": np.ones(3), "b": [np.ones((2, 2))]}])),
    "a mask": lambda opt, spoil: setattr(opt, "mask", spoil({"a": np.ones(3, bool), "b": [np.ones((2, 2), bool)]})),
    "decay": lambda opt, spoil: setattr(opt, "betas", spoil([0.9, 0.99])),
    "the constructor": lambda opt, spoil: fastopt.Adam(spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "a hyper-parameter": lambda opt, spoil: fastopt.Adam(np.ones(3), **spoil({"lr": 0.1, "eps": 1e-8, "weight_decay": 0.1})),
}


@pytest.mark.parametrize("use", USES)
@given(junk=st.sampled_from(sorted(JUNK)), place=st.integers(0, 40))
def test_junk_is_refused_or_right(use, junk, place):
    opt = made()
    before = snapshot(opt)
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        USES[use](opt, lambda tree: spoilt(tree, place, JUNK[junk]))
        return
    np.testing.assert_equal(snapshot(opt), before)
    opt.discard()
    opt.step(GRADIENTS)
    other = made()
    other.step(GRADIENTS)
    np.testing.assert_equal(snapshot(opt), snapshot(other))
