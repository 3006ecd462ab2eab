"""What nobody should hand over, in any place: a TypeError or a ValueError, and nothing changed; or it is right after all."""

import array
import copy
import datetime
import decimal
import fractions

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastopt
from fastopt.arrays.tree import map_leaves
from tests.refusal import snapshot


class Liar(np.ndarray):
    """An array that says that it has another shape."""

    @property
    def shape(self):
        return (3,)


class OtherLiar(np.ndarray):
    """An array that says that it has another dtype."""

    @property
    def dtype(self):
        return np.dtype(np.float64)


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


def junk():
    """All of it, made anew: some of it is taken, and stepped."""
    large = np.arange(8.0)
    return {
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
        "backwards": large[2::-1],
        "every other": large[:6:2],
        "unaligned": np.frombuffer(b"\0" * 25, np.uint8)[1:].view(np.float64),
        "masked": np.ma.masked_array(np.ones(3), [False, True, False]),
        "an array of records": np.zeros(3).view(np.recarray),
        "a liar": np.ones(5).view(Liar),
        "another liar": np.ones(3, int).view(OtherLiar),
    }


def plain(one):
    """The same as nobody could mind it: contiguous arrays of NumPy's own class in the machine's byte order, and floats."""
    if isinstance(one, (np.ndarray, array.array, memoryview)):
        one = np.array(one, order="C", subok=False)
        return one.astype(one.dtype.newbyteorder("="))
    return float(one) if isinstance(one, (bool, np.generic, fractions.Fraction, decimal.Decimal)) else one


def made():
    return fastopt.Adam({"a": np.arange(3.0), "b": [np.ones((2, 2))]})


def spoilt(tree, place, one):
    """A container with junk in one of its places: itself, an item, or an item of an item."""
    if place == 0 or not tree:
        return one
    tree = copy.copy(tree)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[place % len(keys)]
    item = tree[key]
    tree[key] = spoilt(item, place // 2, one) if isinstance(item, (dict, list)) else one
    return tree


GRADIENTS = {"a": np.ones(3), "b": [np.ones((2, 2))]}
ROWS, OF_ROWS = {"a": np.array([2, 0, 2]), "b": [np.array([1])]}, {"a": np.ones(3), "b": [np.ones((1, 2))]}
BATCH = [np.array([0, 2, 3]), np.array([2, 0, 2]), np.ones(3)]
USES = {
    "step": lambda opt, spoil: opt.step(spoil(GRADIENTS)),
    "scale": lambda opt, spoil: opt.step(GRADIENTS, spoil(0.0)),
    "accumulate": lambda opt, spoil: opt.accumulate(spoil(GRADIENTS)) or opt.step(),
    "rows": lambda opt, spoil: opt.step_rows(spoil(ROWS), OF_ROWS),
    "a batch": lambda opt, spoil: opt.step_rows(tuple(spoil(BATCH)), np.ones(2), opt.params["a"]),
    "gradients of rows": lambda opt, spoil: opt.step_rows(ROWS, spoil(OF_ROWS)),
    "norm": lambda opt, spoil: opt.norm(spoil(GRADIENTS)),
    "a state dict": lambda opt, spoil: opt.load_state_dict(spoil(opt.state_dict())),
    "a group": lambda opt, spoil: opt.add_param_group(spoil({"params": [np.ones(3)], "lr": 0.1})),
    "other arrays": lambda opt, spoil: opt.rebind(spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "copies": lambda opt, spoil: opt.param_groups[0].update(copy_to=spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "rates": lambda opt, spoil: setattr(opt, "lr", spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "bounds": lambda opt, spoil: setattr(opt, "bounds", spoil([0.0, {"a": np.ones(3), "b": [np.ones((2, 2))]}])),
    "a mask": lambda opt, spoil: setattr(opt, "mask", spoil({"a": np.ones(3, bool), "b": [np.ones((2, 2), bool)]})),
    "decay": lambda opt, spoil: setattr(opt, "betas", spoil([0.9, 0.99])),
    "the constructor": lambda opt, spoil: fastopt.Adam(spoil({"a": np.ones(3), "b": [np.ones((2, 2))]})),
    "a hyper-parameter": lambda opt, spoil: fastopt.Adam(np.ones(3), **spoil({"lr": 0.1, "eps": 1e-8, "weight_decay": 0.1})),
}


def stepped(opt):
    """What an optimizer is, and after one more step."""
    before = map_leaves(plain, snapshot(opt))
    try:
        opt.step(map_leaves(lambda p: np.ones_like(p, subok=False), opt.params))
    except (TypeError, ValueError) as error:
        if "the schedule's" not in str(error):  # what can be called may be one: what it gives nobody knows before
            raise
    return before, map_leaves(plain, snapshot(opt))


@pytest.mark.parametrize("use", USES)
@example(name="a liar", place=2)
@example(name="another liar", place=2)
@given(name=st.sampled_from(sorted(junk())), place=st.integers(0, 40))
def test_junk_is_refused_or_right(use, name, place):
    opt, other = made(), made()
    try:
        found = USES[use](opt, lambda tree: spoilt(tree, place, junk()[name]))
    except (TypeError, ValueError, RecursionError):
        pass
    else:
        expected = USES[use](other, lambda tree: spoilt(tree, place, plain(junk()[name])))
        if use in ("the constructor", "a hyper-parameter"):
            opt, other = found, expected
        else:
            assert found == expected
    np.testing.assert_equal(stepped(opt), stepped(other))
