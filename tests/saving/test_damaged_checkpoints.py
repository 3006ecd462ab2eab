"""Checkpoints that were damaged, cut off or made by somebody else: refused, with nothing changed, or as they should be."""

import copy
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.saving.archive import Archive
from tests.refusal import snapshot
from tests.saving.test_checkpoint import assert_same_run
from tests.saving.test_checkpoint_files import small


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A checkpoint as bytes, the optimizer that it has, and another one to fill."""
    path = tmp_path_factory.mktemp("sound") / "run.npz"
    opt = small()
    fastopt.save(path, opt)
    return path.read_bytes(), opt, fastopt.Adam({"W": np.zeros((2, 3), np.float32), "b": np.zeros(2)})


def load_or_refuse(path, data, opt, into):
    """Load a file, with all that it should have as the result, or else an error and nothing changed."""
    path.write_bytes(data)
    before = copy.deepcopy(into)
    try:
        fastopt.load(path, into)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    else:
        np.testing.assert_equal(snapshot(into), snapshot(opt))
        return True
    assert refusal
    assert_same_run(into, before)
    np.testing.assert_equal(snapshot(into), snapshot(before))
    return False


@given(data=st.data())
def test_a_flipped_bit_never_changes_what_is_loaded(sound, tmp_path_factory, data):
    whole, opt, _ = sound
    into = fastopt.Adam({"W": np.zeros((2, 3), np.float32), "b": np.zeros(2)})
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    load_or_refuse(tmp_path_factory.getbasetemp() / "flipped.npz", bytes(flipped), opt, into)


@given(data=st.data())
def test_a_file_that_was_cut_off_is_refused(sound, tmp_path_factory, data):
    whole, opt, into = sound
    length = data.draw(st.integers(0, len(whole) - 1))
    assert not load_or_refuse(tmp_path_factory.getbasetemp() / "short.npz", whole[:length], opt, into)


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def archive(files, compression=zipfile.ZIP_STORED):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return memory.getvalue()


def npy(array, **how):
    memory = io.BytesIO()
    np.lib.format.write_array(memory, np.asanyarray(array), **how)
    return memory.getvalue()


def head(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def described(sound, **changes):
    """The files of a checkpoint with another description."""
    with zipfile.ZipFile(io.BytesIO(sound)) as made:
        files = {name: made.read(name) for name in made.namelist()}
    description = json.loads(files["description.json"]) | changes
    return files | {"description.json": json.dumps(description)}


B = "params['b'].npy"


HOSTILE = {
    "empty": lambda sound: b"",
    "text": lambda sound: b"lr = 0.1\n" * 100,
    "pickle": lambda sound: pickle.dumps(Dangerous()),
    "pickle in the archive": lambda sound: archive(described(sound) | {B: npy(np.array([Dangerous()], object))}),
    "another archive": lambda sound: archive({"a.npy": npy(np.ones(3))}),
    "another description": lambda sound: archive({"description.json": "[1, 2]"}),
    "no JSON": lambda sound: archive({"description.json": b"\xff\xfe{"}),
    "JSON that is nested too deeply": lambda sound: archive({"description.json": "[" * 100_000}),
    "compressed": lambda sound: archive(described(sound), zipfile.ZIP_DEFLATED),
    "a bomb": lambda sound: archive({"description.json": b" " * 10**7}, zipfile.ZIP_DEFLATED),
    "huge": lambda sound: archive(
        described(sound) | {B: head("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n")}
    ),
    "negative": lambda sound: archive(
        described(sound) | {B: head("{'descr': '<f8', 'fortran_order': False, 'shape': (-2,), }\n")}
    ),
    "code for a head": lambda sound: archive(described(sound) | {B: head("__import__('os').mkdir('executed')\n")}),
    "a missing array": lambda sound: archive({name: data for name, data in described(sound).items() if name != B}),
    "other numbers": lambda sound: archive(described(sound) | {B: npy(np.ones(2, np.float32))}),
    "another shape": lambda sound: archive(described(sound) | {B: npy(np.ones((2, 1)))}),
    "another version": lambda sound: archive(described(sound, version=2)),
    "no dtypes": lambda sound: archive(described(sound, dtypes=None)),
    "no optimizer": lambda sound: archive(described(sound, optimizer=None)),
    "another optimizer": lambda sound: archive(described(sound, optimizer={"optimizer": "SGD"})),
    "a number for an optimizer": lambda sound: archive(described(sound, optimizer=7)),
    "a reference to nothing": lambda sound: archive(described(sound, optimizer={"$array": "nothing"})),
    "a reference of a wrong kind": lambda sound: archive(described(sound, optimizer={"$array": [1]})),
    "an unknown kind": lambda sound: archive(described(sound, optimizer={"$code": "1"})),
    "items that can be no keys": lambda sound: archive(described(sound, optimizer={"$items": [[[], 1]]})),
    "accumulated gradients of nobody": lambda sound: archive(
        described(sound, accumulated={"count": 1, "sums": {"x": {"$array": "params['b']"}}})
    ),
    "accumulated gradients of another size": lambda sound: archive(
        described(sound, accumulated={"count": 1, "sums": {"params['b']": {"$array": "optimizer/state/m/params['W']"}}})
    ),
    "an uncountable number of accumulated gradients": lambda sound: archive(
        described(sound, accumulated={"count": -1, "sums": {}})
    ),
    "accumulated gradients of a wrong kind": lambda sound: archive(described(sound, accumulated=[])),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_files_of_other_kinds_are_refused(make, sound, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    whole, opt, into = sound
    assert not load_or_refuse(path, make(whole), opt, into)
    assert not os.path.exists("executed")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_time_limit_is_no_damage(limit, path, monkeypatch):
    fastopt.save(path, opt := small())
    checked, names = Archive._checked, []

    def interrupted(self, member):
        names.append(member)
        if len(names) == limit:
            raise TimeoutError("of a signal handler")
        return checked(self, member)

    monkeypatch.setattr(Archive, "_checked", interrupted)
    with pytest.raises(TimeoutError, match="of a signal handler"):
        fastopt.load(path, opt)
