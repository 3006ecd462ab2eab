"""Checkpoints in files: going on with the same bits, ends at any moment, and files that are refused."""

import copy
import errno
import io
import json
import os
import pickle
import struct
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import fastopt
from fastopt import schedules
from fastopt.saving import checkpoints
from fastopt.saving.archive import Archive
from fastopt.saving.replacing import replacing
from tests import fresh
from tests.refusal import refused, snapshot
from tests.saving.test_checkpoint import assert_same_run, every_structure, run
from tests.table import assert_same_bits, every_dtype, every_row


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


@pytest.mark.wide(by=lambda row, dtype, make: (row.rule, dtype, make))
@every_row
@every_dtype
@every_structure
def test_a_run_goes_on_with_the_same_bits(row, dtype, make, path):
    opt = row.make(make(dtype))
    run(opt, 4)
    fastopt.save(path, opt)
    run(opt, 3)
    resumed = row.make(make(dtype), lr=7.0)
    fastopt.load(path, resumed)
    assert resumed.step_count == 4
    run(resumed, 3)
    assert_same_run(resumed, opt)


def with_everything():
    """An optimizer with all that changes over the steps besides its arrays."""
    plateau = schedules.ReduceOnPlateau(0.1, patience=0)
    rate = schedules.Joined([schedules.Constant(0.5), schedules.Warmup(plateau, 2)], [2])
    params = {"W": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": [np.ones(3), np.zeros(2, np.complex64)]}
    options = {"ema_decay": schedules.BiasCorrected(0.9), "clip_norm": np.inf, "nonfinite": "skip"}
    return fastopt.NAdam(params, lr=rate, **options), plateau


def gradients(seed):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, 2)).astype(np.float32)
    return {"W": rng.standard_normal((3, 4), np.float32), "b": [rng.standard_normal(3), (parts[0] + 1j * parts[1])]}


def go_on(opt, plateau, seed):
    opt.step(gradients(seed))
    plateau.update(float(seed))
    opt.accumulate(gradients(seed + 1))
    opt.step()
    opt.step(map_nan(gradients(seed)))
    opt.accumulate(gradients(seed + 2))


def map_nan(grads):
    grads["W"][0, 0] = np.nan
    return grads


def test_schedules_averages_and_accumulated_gradients_go_on(path):
    opt, plateau = with_everything()
    for seed in (1, 5, 9):
        go_on(opt, plateau, seed)
        opt.discard()
    opt.accumulate(gradients(20))
    fastopt.save(path, opt)
    resumed, other = with_everything()
    resumed.accumulate(gradients(3))  # which is forgotten
    fastopt.load(path, resumed)
    assert (resumed.skipped_steps, resumed.step_count) == (3, 6)
    for each, of_it in ((opt, plateau), (resumed, other)):
        each.accumulate(gradients(21))
        each.step()
        go_on(each, of_it, 30)
        each.step()
    assert_same_run(resumed, opt)
    assert other.state_dict() == plateau.state_dict()


def test_accumulated_gradients_of_some_groups(path):
    def make():
        return fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(2, np.float32), "frozen": True}])

    opt, resumed = make(), make()
    opt.accumulate([np.ones(3), None])
    fastopt.save(path, opt)
    fastopt.load(path, resumed)
    for each in (opt, resumed):
        each.accumulate([np.full(3, 2.0), None])
        each.step()
    np.testing.assert_allclose(opt.params[0], 1.0 - 1e-3 * 1.5)
    assert_same_run(resumed, opt)


def test_copies_are_brought_up_to_date(path):
    def make(value):
        return fastopt.SGD(np.full(3, value), copy_to=(half := np.zeros(3, np.float16))), half

    (opt, _), (resumed, half) = make(2.0), make(5.0)
    fastopt.save(path, opt)
    fastopt.load(path, resumed)
    np.testing.assert_array_equal(half, 2.0)


def test_arrays_beside_the_optimizer(path):
    weights = {"W": np.arange(6.0).reshape(2, 3), "layers": [np.arange(8, dtype=np.float32)[::2]]}
    half, seed = np.array([1.5, -2.0], bfloat16), np.random.default_rng(7).integers(0, 2**63, 4)
    fastopt.save(path, params=weights, half=half, seed=seed, flat=fastopt.flatten([np.ones(2)]), none=np.zeros((0, 3), bool))
    with np.load(path) as file:
        np.testing.assert_array_equal(file["params['W']"], weights["W"])
        np.testing.assert_array_equal(file["params['layers'][0]"], [0, 2, 4, 6])
        assert json.loads(file["description.json"])["format"] == "fastopt checkpoint"
    into = {"W": np.zeros((2, 3), order="F"), "layers": [np.zeros(8, np.float32)[::2]]}
    halved, seeded, flat = np.zeros(2, bfloat16), np.zeros(4, np.int64), fastopt.flatten([np.zeros(2)])
    fastopt.load(path, params=into, half=halved, seed=seeded, flat=flat)
    np.testing.assert_equal([into["W"], into["layers"][0], seeded, flat.buffer], [weights["W"], [0, 2, 4, 6], seed, [1.0, 1.0]])
    assert halved.tobytes() == half.tobytes()


class Stubborn(np.ndarray):
    """An array that nothing can be assigned to, as one with units may be."""

    def __setitem__(self, key, value):
        raise TypeError("no units")


def test_arrays_of_other_classes_are_filled(path):
    fastopt.save(path, lengths=np.arange(3.0))
    fastopt.load(path, lengths=(lengths := np.zeros(3).view(Stubborn)))
    assert lengths.tolist() == [0.0, 1.0, 2.0]


def test_numbers_are_saved_as_arrays(path):
    fastopt.save(path, epoch=3, loss=0.5, last=np.float32(2), both=[1, 2.0])
    filled = {
        "epoch": np.array(0),
        "loss": np.array(0.0),
        "last": np.zeros((), np.float32),
        "both": [np.array(0), np.array(0.0)],
    }
    fastopt.load(path, **filled)
    np.testing.assert_equal(filled, {"epoch": 3, "loss": 0.5, "last": 2, "both": [1, 2.0]})


def small():
    opt = fastopt.Adam({"W": np.ones((2, 3), np.float32), "b": np.ones(2)})
    run(opt, 2)
    return opt


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


def test_what_is_to_be_filled_must_fit(path):
    opt = small()
    fastopt.save(path, opt, more=np.arange(3))
    with pytest.raises(FileNotFoundError):
        fastopt.load(path.with_name("other"), opt)
    read_only = np.zeros(3, np.int64)
    read_only.flags.writeable = False
    for error, words, named in [
        (ValueError, ["nothing"], {}),
        (ValueError, ["has no array 'params'"], {"params": np.zeros(3)}),
        (ValueError, ["has no array 'others'"], {"others": np.zeros(3)}),
        (TypeError, ["more must be of int64", "float64"], {"more": np.zeros(3)}),
        (ValueError, ["more must have the shape (3,)", "(4,)"], {"more": np.zeros(4, np.int64)}),
        (ValueError, ["more is read-only"], {"more": read_only}),
        (TypeError, ["more must be a NumPy array, got int"], {"more": 3}),
        (ValueError, ["letters", "'a b'"], {"a b": np.zeros(3)}),
    ]:
        with refused(error, *words, opt=opt):
            fastopt.load(path, **named)
    fastopt.save(path, params=np.zeros(3))
    with refused(ValueError, "has no optimizer"):
        fastopt.load(path, fastopt.SGD(np.zeros(3)), params=np.zeros(3))


class Remembering:
    def __call__(self, step):
        return 0.5

    def state_dict(self):
        return {"what": object()}

    def load_state_dict(self, state):
        raise AssertionError


def test_what_can_not_be_saved_leaves_the_old_checkpoint(path):
    fastopt.save(path, small())
    before = path.read_bytes()
    for error, words, named in [
        (TypeError, ["optimizer/progress/0/schedules/lr/what"], {"opt": fastopt.SGD(np.zeros(1), lr=Remembering())}),
        (TypeError, ["text must hold numbers"], {"text": np.array(["a"])}),
        (TypeError, ["text must be a NumPy array, got str"], {"text": "a"}),
        (TypeError, ["objects must hold numbers"], {"objects": np.array([None])}),
        (ValueError, ["nothing to save"], {}),
    ]:
        with refused(error, *words):
            fastopt.save(path, **named)
        with refused(error, *words):
            fastopt.save_async(path, **named)
    swapped = fastopt.SGD(np.zeros(1), ema_decay=0.5)
    with swapped.swap_ema(), pytest.raises(RuntimeError, match="swapped"):
        fastopt.save(path, swapped)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_a_schedule_remembers_keeps_its_kind(path):
    class Keeping(Remembering):
        value = None

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    for value in [(1, [2.5, None]), {1: "a", (2, "$b"): True}, {"$array": "x"}, np.arange(3.0), np.nan, "\ud800", -(10**30)]:
        schedule, other = Keeping(), Keeping()
        schedule.value = value
        fastopt.save(path, fastopt.SGD(np.zeros(1), lr=schedule))
        fastopt.load(path, fastopt.SGD(np.zeros(1), lr=other))
        np.testing.assert_equal(other.value, value)
        assert type(other.value) is type(value)


def test_asynchronous_checkpoints_have_what_was_there_at_the_call(path):
    opt, twin = small(), small()
    first = fastopt.save_async(path, opt)
    run(opt, 1)
    second = fastopt.save_async(path, opt, keep_previous=True)
    run(opt, 1)
    opt.params["W"][...] = np.nan
    for future in (first, second):
        assert future.result(timeout=60) is None
    for name, steps in ((path.name + ".previous", 0), (path.name, 1)):
        into = small()
        fastopt.load(path.with_name(name), into)
        run(twin, steps)
        assert_same_run(into, twin)
    missing = fastopt.save_async(path / "folder" / "run.npz", opt)
    with pytest.raises(OSError, match=r"run\.npz"):
        missing.result(timeout=60)


def test_the_previous_file_is_kept_if_asked_for(path):
    link = path.with_name("link")
    link.symlink_to(path)
    for keep, content, files in [
        (True, b"1", ["1"]),
        (True, b"2", ["1", "2"]),
        (False, b"3", ["1", "3"]),
        (True, b"4", ["3", "4"]),
    ]:
        with replacing(link, keep) as file:
            file.write(content)
        found = [each.read_text() for each in sorted(path.parent.glob("run*"), reverse=True)]
        assert found == files
    assert link.is_symlink()


def test_on_windows_files_are_closed_before_they_are_renamed_or_removed(path, monkeypatch):
    closed, replace, unlink = [], os.replace, Path.unlink
    monkeypatch.setattr("fastopt.saving.replacing.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(os, "replace", lambda *names: closed.append(file.closed) or replace(*names))
    monkeypatch.setattr(Path, "unlink", lambda *names: closed.append(file.closed) or unlink(*names))
    with replacing(path) as file:
        file.write(b"new")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        _ = 1 / 0
    assert closed == [True, True]
    assert (path.read_bytes(), os.listdir(path.parent)) == (b"new", [path.name])


def test_errors_of_renaming_name_the_path_that_was_given(path, monkeypatch):
    def denied(source, target):
        raise PermissionError(errno.EPERM, "denied", os.fspath(source), None, os.fspath(target))

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(PermissionError) as raised, replacing(path):
        pass
    assert str(raised.value) == f"[Errno {errno.EPERM}] denied: {str(path)!r}"


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(path):
    left, others = path.with_name(".run.npz.0123.part"), [".run.npz", ".other.npz.0123.part", ".run.npz.0123"]
    for each in (left, *(path.with_name(name) for name in others)):
        each.write_bytes(b"left")
    with replacing(path) as outer:
        outer.write(b"outer")
        with replacing(path) as inner:  # by another one, while the first one is at work
            inner.write(b"inner")
        assert path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer"
    assert sorted(os.listdir(path.parent)) == sorted([path.name, *others])


KILLED = """
import random, signal, time
path = "run.npz"
w, count = np.zeros(20_000, np.float32), np.array(0)
opt = fastopt.SGD(w, momentum=0.9)
fastopt.save(path, opt, count=count)
rng, read, write = random.Random({seed}), *os.pipe()
found = []
for _ in range({kills}):
    child = os.fork()
    if child == 0:
        while True:
            count += 1
            w += 1
            opt.state["p"][...] = w
            fastopt.save(path, opt, count=count, keep_previous=True)
            os.write(write, b".")
    time.sleep(rng.random() * {longest})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.set_blocking(read, False)
    done = 0
    try:
        while data := os.read(read, 65536):
            done += len(data)
    except BlockingIOError:
        pass
    before = int(count)
    for each in (path, path + ".previous"):
        if os.path.exists(each):
            fastopt.load(each, opt, count=count)
            assert np.all(w == count) and np.all(opt.state["p"] == count), "old and new are mixed"
    fastopt.load(path, opt, count=count)
    assert before + done <= int(count) <= before + done + 1, (before, done, int(count))
    found.append(int(count) - before)
left = [name for name in os.listdir() if name.endswith(".part")]
report(kills=len(found), saves=sum(found), left=len(left))
"""


def test_a_process_that_is_killed_leaves_the_old_or_the_new_checkpoint(tmp_path):
    found = fresh.run(KILLED.format(seed=1, kills=20, longest=0.05), tmp_path)
    assert found["kills"] == 20
    assert found["saves"] > 0
    assert found["left"] <= 1


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write that is too long is an error, as on a full disk
opt = fastopt.SGD(w := np.ones(10_000))
fastopt.save("run.npz", opt)
before = open("run.npz", "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
errors = []
for save in (fastopt.save, lambda *given: fastopt.save_async(*given).result()):
    try:
        save("run.npz", opt)
    except OSError as error:
        errors.append((error.strerror, error.filename))
report(errors=errors, same=open("run.npz", "rb").read() == before, files=os.listdir())
"""


def test_a_full_disk_is_an_error_and_the_old_checkpoint_stays(tmp_path):
    found = fresh.run(FULL, tmp_path)
    assert found == {"errors": [["File too large", "run.npz"]] * 2, "same": True, "files": ["run.npz"]}


PLACES = {
    "no folder": lambda folder: folder / "none" / "run.npz",
    "a file for a folder": lambda folder: folder / "file" / "run.npz",
    "a folder of the system": lambda folder: "/proc/run.npz",  # where root, too, makes no file
    "too long a name": lambda folder: folder / ("x" * 300),
}
WRITERS = {
    "save": fastopt.save,
    "save_async": lambda path, opt: fastopt.save_async(path, opt).result(),
    "state_path": lambda path, opt: fastopt.Adam(np.ones(3), state_path=path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_where_no_file_can_be_the_error_names_it_and_the_run_goes_on(place, write, tmp_path):
    (tmp_path / "file").touch()
    opt = small()
    other, path = copy.deepcopy(opt), place(tmp_path)
    with refused(OSError, repr(str(path)), opt=opt):
        write(path, opt)
    assert os.listdir(tmp_path) == ["file"]
    for each in (opt, other):
        run(each, 1)
    assert_same_run(opt, other)


@pytest.mark.parametrize("save", [fastopt.save, WRITERS["save_async"]])
def test_what_is_no_file_is_never_replaced(save, tmp_path):
    (folder := tmp_path / "folder").mkdir()
    os.mkfifo(fifo := tmp_path / "fifo")
    (link := tmp_path / "link").symlink_to(fifo)
    for path in (folder, fifo, link):
        with refused(FileExistsError, "other than a file", repr(str(path))):
            save(path, small())
    assert (folder.is_dir(), fifo.is_fifo(), link.is_fifo()) == (True,) * 3
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("options", [{}, {"master_weights": True}, {"rounding": "stochastic"}], ids=str)
def test_parameters_of_16_bits_go_on_with_what_was_accumulated(options, path):
    g = np.linspace(0.0, 1.0, 6, dtype=np.float32)
    opts = [fastopt.Adam(np.ones(6, np.float16), lr=0.1, **options) for _ in range(2)]
    opts[0].step(g)
    opts[0].accumulate(g)
    fastopt.save(path, opts[0])
    fastopt.load(path, opts[1])
    for opt in opts:
        opt.step()
    assert_same_bits(*(opt.params for opt in opts))


def test_who_writes_in_the_background_gives_way_to_those_who_step():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here, there = niceness(), checkpoints._background.submit(niceness).result()
    assert there == (min(here + 8, 19) if sys.platform == "linux" else here)
