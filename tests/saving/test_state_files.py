"""States in a file, ``state_path``: they are gone on from exactly, or the file is refused and stays as it is."""

import contextlib
import copy
import errno
import gc
import os
import signal
import subprocess
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt.arrays import mapped
from tests import fresh
from tests.disks import disk_of
from tests.refusal import refused
from tests.table import assert_same_bits

SIZES = (3000, 7)


def arrays(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(dtype) for size in SIZES]


def closed(path, seed=0, steps=2, **options):
    """The parameters of an optimizer that was closed after some steps."""
    with contextlib.closing(fastopt.Adam(params := arrays(seed), state_path=path, **options)) as opt:
        for i in range(steps):
            opt.step(arrays(10 + i))
    return params


KINDS = {
    "averages": (np.float32, {"ema_decay": 0.9}),
    "masters": (ml_dtypes.bfloat16, {"master_weights": True}),
    "lost bits": (ml_dtypes.bfloat16, {"master_weights": "lost bits", "rounding": "stochastic", "seed": 7}),
    "formats": (np.float32, {"state_dtype": {"v": "bfloat16"}, "rounding": "stochastic"}),
}


@pytest.mark.parametrize(("dtype", "options"), KINDS.values(), ids=KINDS)
def test_a_run_in_files_has_the_bits_of_one_in_memory(dtype, options, tmp_path):
    path = tmp_path / "states"
    options = {**options, "lr": fastopt.schedules.Cosine(0.1, 10), "clip_norm": 1.0}
    whole, params = fastopt.Adam(arrays(0, dtype), **options), arrays(0, dtype)
    for part in range(3):
        opt = fastopt.Adam(params, state_path=path, **options)
        assert opt.step_count == 2 * part
        for i in range(2):
            for each in (whole, opt):
                each.step(arrays(10 * part + i))
        for name in opt.state:
            for own, expected in zip(opt.state[name], whole.state[name], strict=True):
                assert_same_bits(own, expected)
        opt.close()
    for own, expected in zip(params, whole.params, strict=True):
        assert_same_bits(own, expected)


def test_hyperparameters_are_those_that_the_optimizer_was_closed_with(tmp_path):
    params = closed(tmp_path / "states", lr=0.5)
    opt = fastopt.Adam(params, lr=0.25, state_path=str(tmp_path / "states"))
    assert (opt.lr, opt.step_count) == (0.5, 2)


def test_the_end_of_an_optimizer_closes_it(tmp_path):
    path = tmp_path / "states"
    opt = fastopt.Adam(params := arrays(0), state_path=path)
    opt.step(arrays(1))
    del opt
    gc.collect()
    assert fastopt.Adam(params, state_path=path).step_count == 1


@pytest.mark.parametrize(("ending", "goes_on"), [("pass", True), ("1 / 0", True), ("os.kill(os.getpid(), 9)", False)])
def test_so_does_the_end_of_a_process_but_not_when_it_is_killed(ending, goes_on, tmp_path):
    script = f"""
w = np.ones(100)
opt = fastopt.Adam(w, state_path="states")
opt.step(np.ones(100))
np.save("w.npy", w)
{ending}
"""
    process = fresh.start(script, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == {"pass": 0, "1 / 0": 1}.get(ending, -signal.SIGKILL)
    w = np.load(tmp_path / "w.npy")
    if goes_on:
        assert fastopt.Adam(w, state_path=tmp_path / "states").step_count == 1
    else:
        with refused(ValueError, "broken off"):
            fastopt.Adam(w, state_path=tmp_path / "states")


def end_of(opt):
    """Do to an optimizer what the end of the process does."""
    (end,) = (found for found in weakref.finalize._registry if found.alive and found.peek()[0] is opt)
    end()


def test_the_end_within_a_swap_leaves_nothing_to_go_on_from(tmp_path):
    path = tmp_path / "states"
    opt = fastopt.Adam(params := arrays(0), state_path=path, ema_decay=0.9)
    opt.step(arrays(1))
    block = opt.swap_ema()
    block.__enter__()
    with refused(RuntimeError, "swapped"):
        end_of(opt)
    del opt, block
    gc.collect()
    with refused(ValueError, "broken off"):
        fastopt.Adam(params, state_path=path, ema_decay=0.9)


def test_optimizers_with_more_than_states_end_as_they_are_closed(tmp_path):
    whole, params = fastopt.NoisySGD(arrays(0)), arrays(0)
    for seed in range(2):
        opt = fastopt.NoisySGD(params, state_path=tmp_path / "states")
        for each in (whole, opt):
            each.step(arrays(seed))
        del opt, each
        gc.collect()
    assert_same_bits(params[0], whole.params[0])


FORKED = """
import contextlib
w = np.ones(5)
opt = fastopt.Adam(w, state_path="states")
if not (child := os.fork()):
    failed = 0
    for action in (lambda: opt.step(np.ones(5)), opt.close):
        with contextlib.suppress(RuntimeError):
            action()
            failed += 1
    os._exit(failed)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
try:
    fastopt.Adam(np.ones(5), state_path="states")
    refused = ""
except ValueError as error:
    refused = str(error)
opt.step(np.ones(5))
opt.close()
report(status=status, refused=refused, steps=fastopt.Adam(w, state_path="states").step_count)
"""


def test_a_forked_child_leaves_the_states_of_its_parent_alone(tmp_path):
    found = fresh.run(FORKED, tmp_path)  # where no other library has threads
    assert "another one has" in found.pop("refused")
    assert found == {"status": 0, "steps": 1}


FORKED_MEANWHILE = """
w = np.ones(5)
opt = fastopt.SGD(w, lr=1.0, ema_decay=0.5, state_path="states")
opt.step(np.ones(5))
with opt.swap_ema():
    child = os.fork()
if not child:
    try:
        opt.step(np.ones(5))
    except RuntimeError as error:
        os._exit("parent" not in str(error))
    os._exit(1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
report(status=status, w=w.tolist(), ema=opt.ema.tolist())
"""


def test_a_child_that_was_forked_during_a_swap_swaps_nothing_back(tmp_path):
    found = fresh.run(FORKED_MEANWHILE, tmp_path)
    assert found == {"status": 0, "w": [0.0] * 5, "ema": [0.5] * 5}


def test_one_at_a_time(tmp_path):
    path = tmp_path / "states"
    opt = fastopt.Adam(np.ones(5), state_path=path)
    with refused(ValueError, "another one has"):
        fastopt.Adam(np.ones(5), state_path=path)
    script = f"import numpy, fastopt; fastopt.Adam(numpy.ones(5), state_path={str(path)!r})"
    other = subprocess.run([sys.executable, "-c", script], env=fresh.environment(), capture_output=True, text=True)
    assert "ValueError: state_path must be of one optimizer at a time" in other.stderr
    opt.step(np.ones(5))


def test_where_there_are_no_locks_the_file_is_let_go(tmp_path, monkeypatch):
    opened = []

    def flock(file, operation):
        opened.append(file)
        raise OSError(errno.ENOLCK, "no locks available")

    gc.collect()  # of files of earlier tests, which would be let go in this one
    monkeypatch.setattr(mapped.fcntl, "flock", flock)
    with refused(OSError, "no locks available"):
        fastopt.Adam(arrays(0), state_path=tmp_path / "states")
    assert [file.closed for file in opened] == [True]


def test_what_does_not_fit_is_refused_and_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "states"
    params = closed(path)
    before = path.read_bytes()
    others = [params[0] + 1, params[1]]
    for words, cls, given, options in [
        ("params[0] was", fastopt.Adam, others, {}),
        ("m of params[1] was 'float32 (7,)', and here is None", fastopt.Adam, params[:1], {}),
        ("too short", fastopt.Adam, [np.tile(p, 50) for p in params], {}),
        ("v of params[0] was 'float32 (3000,)', and here is 'uint16", fastopt.Adam, params, {"state_dtype": {"v": "bfloat16"}}),
        ("belongs to 'Adam', not to AdamW", fastopt.AdamW, params, {}),
    ]:
        with refused(ValueError, words):
            cls(given, state_path=path, **options)
        assert path.read_bytes() == before
    assert fastopt.Adam(params, state_path=path).step_count == 2


def test_what_is_no_file_stays_where_it_is(tmp_path):
    os.mkfifo(fifo := tmp_path / "fifo")
    for path in (fifo, tmp_path, os.devnull):
        with refused(ValueError, "must be of a file"):
            fastopt.Adam(np.ones(5), state_path=path)
        assert os.path.exists(path)
    with refused(ValueError, "int8"):
        fastopt.Adam(np.ones(5), state_path=tmp_path / "states", state_dtype="int8")
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("content", [b"\0" * 100_000, b"my own notes", "checkpoint"], ids=["zeros", "text", "checkpoint"])
def test_files_of_others_are_refused_and_stay_as_they_are(content, tmp_path):
    path = tmp_path / "states"
    opt = fastopt.Adam(params := arrays(0))
    if content == "checkpoint":
        fastopt.save(path, opt)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with refused(ValueError, "state_path must"):
        fastopt.Adam(params, state_path=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["m", "v"])
def test_damage_to_the_states_is_found(name, tmp_path):
    path = tmp_path / "states"
    with contextlib.closing(fastopt.Adam(params := np.ones((60, 50), order="F"), state_path=path)) as opt:
        opt.step(np.random.default_rng(0).standard_normal(params.shape))
        number = opt.state[name][59, 49].tobytes()
    content = path.read_bytes()
    at = content.index(number)
    path.write_bytes(damaged := content[:at] + bytes([number[0] ^ 1]) + content[at + 1 :])
    with refused(ValueError, "numbers with which", "was closed", f"of {name} of params was"):
        fastopt.Adam(params, state_path=path)
    assert path.read_bytes() == damaged
    path.write_bytes(content)
    assert fastopt.Adam(params, state_path=path).step_count == 1


def test_damage_behind_the_states_is_found(tmp_path):
    path = tmp_path / "states"
    params = closed(path)
    content = path.read_bytes()
    end = content.rindex(b"PK\x03\x04")
    for at in range(end, len(content), 97):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError, TypeError):  # dates of the archive's files are nobody's
            assert fastopt.Adam(params, state_path=path).step_count == 2
        path.write_bytes(content)
    assert fastopt.Adam(params, state_path=path).step_count == 2


@contextlib.contextmanager
def too_large_for(size):
    """A ``with`` block in which a disk of so many bytes is too small."""
    with disk_of(size), pytest.raises(OSError, match=r"File too large: '.*states'"):
        yield


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path):
    path = tmp_path / "states"
    with too_large_for(1 << 20):  # which takes m, but not v
        fastopt.Adam(np.ones(200_000, np.float32), state_path=path)
    assert not path.exists()
    params = closed(path)
    before = path.read_bytes()
    with too_large_for(len(before)):
        fastopt.Adam(params, state_path=path)
    assert path.read_bytes() == before
    opt = fastopt.Adam(params, state_path=path)
    with too_large_for(1000):
        opt.close()
    opt.step(arrays(1))
    opt.close()
    assert fastopt.Adam(params, state_path=path).step_count == 3


def interrupted(*_):
    raise KeyboardInterrupt


def test_an_interrupt_at_the_beginning_leaves_the_file_to_go_on_from(tmp_path, monkeypatch):
    params = closed(path := tmp_path / "states")
    before = path.read_bytes()
    for at in ("posix_fallocate", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, at, interrupted)
            with pytest.raises(KeyboardInterrupt):
                fastopt.Adam(params, state_path=path)
        assert path.read_bytes() == before
    assert fastopt.Adam(params, state_path=path).step_count == 2


def test_so_it_does_where_the_system_reads_less_at_once_than_was_asked_for(tmp_path, monkeypatch):
    params = closed(path := tmp_path / "states")
    before, read = path.read_bytes(), os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: read(file, min(size, 100), at))  # as Linux does from 2 GB on
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fastopt.Adam(params, state_path=path)
    assert path.read_bytes() == before
    opt = fastopt.Adam(params, state_path=path)
    begun = path.read_bytes()  # which a process that is killed would leave
    opt.close()
    path.write_bytes(begun)
    with refused(ValueError, "broken off"):
        fastopt.Adam(params, state_path=path)


@pytest.mark.parametrize("is_let_go", [False, True])
def test_an_interrupt_at_the_end_leaves_no_optimizer_that_steps_what_others_may_have(is_let_go, tmp_path, monkeypatch):
    opt = fastopt.Adam(params := np.ones(5), state_path=(path := tmp_path / "states"))
    file = opt._model.file
    let_go = file.let_go

    def interrupted_there():
        if is_let_go:
            let_go()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file, "let_go", interrupted_there)
        with pytest.raises(KeyboardInterrupt):
            opt.close()
    with refused(RuntimeError, "closed"):
        opt.step(np.ones(5))
    opt.close()
    assert fastopt.Adam(params, state_path=path).step_count == 0


def test_a_file_that_was_removed_meanwhile_is_missed(tmp_path):
    opt = fastopt.Adam(np.ones(5), state_path=tmp_path / "states")
    (tmp_path / "states").unlink()
    with pytest.raises(FileNotFoundError, match="removed"):
        opt.close()
    opt.step(np.ones(5))
    with refused(FileNotFoundError, "removed"):
        end_of(opt)


def test_all_space_is_there_from_the_beginning(tmp_path):
    path = tmp_path / "states"
    opt = fastopt.Adam(np.ones(500_000, np.float32), state_path=path)
    assert os.stat(path).st_blocks * 512 >= 2 * 4 * 500_000
    assert opt.step_count == 0


@pytest.mark.parametrize("optimizer", [fastopt.SGD, fastopt.Adam])
def test_so_is_space_for_what_the_end_writes(optimizer, tmp_path):
    path = tmp_path / "states"
    opt = optimizer([np.ones(1, np.float32) for _ in range(300)], state_path=path)
    reserved = path.stat().st_size
    opt.step([np.ones(1, np.float32) for _ in range(300)])
    opt.close()
    assert path.stat().st_size <= reserved


def test_an_optimizer_that_was_closed_takes_no_step(tmp_path):
    opt = fastopt.Adam(np.ones(5), state_path=tmp_path / "states")
    opt.step(np.ones(5))
    opt.close()
    opt.close()
    for action in (lambda: opt.step(np.ones(5)), lambda: opt.reset(), lambda: opt.state_dict()):
        with refused(RuntimeError, "closed"):
            action()
    assert opt.step_count == 1
    plain = fastopt.Adam(np.ones(5))
    plain.close()
    plain.step(np.ones(5))


def test_what_can_not_be_is_refused(tmp_path):
    opt = fastopt.Adam(np.ones(5), state_path=tmp_path / "states", ema_decay=0.5)
    for action in (lambda: copy.copy(opt), lambda: copy.deepcopy(opt), lambda: opt.rebind(np.zeros(5))):
        with refused(TypeError, "state_path"):
            action()
    with refused(ValueError, "state_path"):
        opt.add_param_group({"params": np.ones(2)})
    with refused(TypeError, "state_path must be None or a path"):
        fastopt.Adam(np.ones(5), state_path=3)
    with opt.swap_ema(), refused(RuntimeError, "swapped"):
        opt.close()
    opt.step(np.ones(5))


def test_checkpoints_and_state_dicts_fill_states_in_files(tmp_path):
    whole = fastopt.Adam(arrays(0))
    whole.step(arrays(1))
    fastopt.save(tmp_path / "run.npz", whole)
    opt = fastopt.Adam(arrays(5), state_path=tmp_path / "states")
    fastopt.load(tmp_path / "run.npz", opt)
    for each in (whole, opt):
        each.step(arrays(2))
    opt.close()
    again = fastopt.Adam(opt.params, state_path=tmp_path / "states")
    assert_same_bits(again.state["v"][0], whole.state["v"][0])
    assert_same_bits(again.params[0], whole.params[0])
