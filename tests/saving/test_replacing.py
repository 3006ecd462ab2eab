"""Checkpoints whose writing ends early: by a kill, a full disk or a place where no file can be, the old one stays."""

import copy
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from fastopt.saving.replacing import replacing
from tests import fresh
from tests.disks import disk_of
from tests.refusal import refused
from tests.saving.test_checkpoint import assert_same_run, run
from tests.saving.test_checkpoint_files import small


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


def test_a_full_disk_is_an_error_and_the_old_checkpoint_stays(path):
    opt = fastopt.SGD(np.ones(10_000))
    fastopt.save(path, opt)
    before = path.read_bytes()
    for save in (fastopt.save, WRITERS["save_async"]):
        with disk_of(50_000), refused(OSError, "File too large", repr(str(path)), opt=opt):
            save(path, opt)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


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
