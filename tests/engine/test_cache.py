"""Kernels are compiled once and found again in another process; without a cache, or a sound one, all still works."""

from __future__ import annotations

import stat
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

import fastopt
from fastopt.engine import cache
from tests import fresh

STEP = """
opt, w = run(cls=fastopt.SGD)
(span,) = used(opt)
report(bits=bits(w), hits=span.cache_hits, misses=1 - span.cache_hits)
"""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.nb?"))


def test_second_process_hits_with_the_same_files_and_bits(tmp_path: Path) -> None:
    script = STEP.replace("SGD", "Adam")
    cold = fresh.run(script, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    after_cold = files(tmp_path)
    warm = fresh.run(script, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    assert (cold["hits"], cold["misses"]) == (0, 1)
    assert (warm["hits"], warm["misses"]) == (1, 0)
    assert warm["bits"] == cold["bits"]
    # One index and one object file for the one span that ran, for its numbers, and for the function that runs all spans.
    assert files(tmp_path) == after_cold
    assert len(after_cold) == 6


class Moody:
    """Pickled in another way each time."""

    pickled = 0

    def __reduce__(self) -> tuple[type[Moody], tuple[()], int]:
        Moody.pickled += 1
        return Moody, (), Moody.pickled


def test_code_is_found_by_the_name_of_a_function_whatever_its_values_are_pickled_as() -> None:
    value = Moody()

    def function() -> Moody:
        return value

    codegen = cpu_target.target_context.codegen()
    found, again = (cache.cache_of(function)._index_key((), codegen) for _ in range(2))
    assert found == again
    assert codegen.magic_tuple() in found


BOTH = """
fastopt.set_num_threads(2)
found = {}
for mode in ("serial", "parallel"):
    fastopt.set_parallel_threshold(0 if mode == "parallel" else 10**12)
    opt, w = run(size=5000, cls=fastopt.SGD)
    found[mode] = [bits(w), is_parallel(opt), used(opt)[0].cache_hits]
report(**found)
"""


def test_one_span_serves_serial_and_parallel_steps(tmp_path: Path) -> None:
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path), "NUMBA_NUM_THREADS": "2"}
    engine = files(tmp_path)
    for hits in (0, 1):
        result = fresh.run(BOTH, tmp_path, **env)
        assert result["serial"] == [result["parallel"][0], False, hits]
        assert result["parallel"][1:] == [True, hits]
        assert len(files(tmp_path)) == len(engine) + 2


SIGNAL = """
import signal

class OutOfTimeError(Exception):
    pass

def handler(number, frame):
    raise OutOfTimeError

signal.signal(signal.SIGALRM, handler)
w = np.ones(3)
opt = fastopt.Adam(w)
signal.setitimer(signal.ITIMER_REAL, 0.25)
try:
    opt.step(np.ones(3))
    raised = False
except OutOfTimeError:
    raised = True
report(raised=raised, steps=opt.step_count, w=w.tolist())
"""


def test_a_time_limit_ends_a_step_that_compiles(tmp_path: Path) -> None:
    result = fresh.run(SIGNAL, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert result == {"raised": True, "steps": 0, "w": [1.0] * 3}


EMPTIED = """
import resource, shutil, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write that is too long is an error, as on a full disk
root = os.environ["NUMBA_CACHE_DIR"]
kernels = lambda: sum(name.startswith("loop.") for _, _, names in os.walk(root) for name in names)

opt, w = run(steps=2, cls=fastopt.SGD)
shutil.rmtree(root)
opt.step(np.linspace(2.0, -1.0, w.size).astype("float32"))
_, other = run("float64", cls=fastopt.SGD)
written = kernels()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))  # room for an index, but for no code
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    _, third = run("float32", gradient_dtype="float64", cls=fastopt.SGD)
report(bits=[bits(each) for each in (w, other, third)], written=written, full=kernels() - written, warnings=len(caught))
"""

REFILLED = """
opt, w = run("float32", gradient_dtype="float64", cls=fastopt.SGD)
report(bits=bits(w), hits=used(opt)[0].cache_hits)
"""


def stepped(dtype: str, gradient_dtype: str) -> str:
    """The bits after the steps that the scripts take."""
    w, g = np.linspace(-1.0, 1.0, 1000).astype(dtype), np.linspace(2.0, -1.0, 1000).astype(gradient_dtype)
    opt = fastopt.SGD(w, lr=0.01)
    for _ in range(3):
        opt.step(g)
    return w.tobytes().hex()


def test_a_cache_that_is_emptied_and_a_full_disk_change_nothing(tmp_path: Path) -> None:
    expected = [stepped(*dtypes) for dtypes in (("float32", "float32"), ("float64", "float64"), ("float32", "float64"))]
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path / "cache")}
    found = fresh.run(EMPTIED, tmp_path, **env)
    assert found == {"bits": expected, "written": 2, "full": 1, "warnings": 1}
    # Now an index names code that is not there.
    fresh.with_engine(tmp_path / "cache")
    assert fresh.run(REFILLED, tmp_path, **env) == {"bits": expected[2], "hits": 0}


UNCACHED = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    opt, w = run(cls=fastopt.SGD)
    run(dtype="float64", cls=fastopt.SGD)
report(bits=bits(w), warnings=[str(c.message) for c in caught])
"""


WHERE = """
opt, w = run(cls=fastopt.SGD)
(span,) = used(opt)
found = [path for path, _, names in os.walk(os.environ["ROOT"]) for name in names if name.endswith((".nbi", ".nbc"))]
report(bits=bits(w), hits=span.cache_hits, folder=span._cache.cache_path, found=sorted(set(found)))
"""


FOLDER = """
from fastopt.engine import cache
report(folder=str(cache.folder()))
"""


def test_kernels_lie_in_the_user_s_cache_folder_and_not_beside_the_package(package: Path) -> None:
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": str(package / "home")}
    folder = Path(fresh.run(FOLDER, package, **env)["folder"])
    assert package / "home" in folder.parents
    assert folder.parent.name in ("fastopt", "Cache")
    assert folder.name.startswith(f"fastopt-{fastopt.__version__}-{llvm.get_host_cpu_name()}-")
    fresh.with_engine(folder.parent)
    for hits in (0, 1):
        result = fresh.run(WHERE, package, **env, ROOT=str(package))
        assert (result["hits"], result["found"]) == (hits, [str(folder)])


def test_each_version_and_each_kind_of_processor_has_another_folder(package: Path) -> None:
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(package / "cache")}
    other = fresh.run(FOLDER, package, **env, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")["folder"]
    source = package / "fastopt" / "__init__.py"
    source.write_text(source.read_text().replace(fastopt.__version__, "99.0"))
    newer = fresh.run(FOLDER, package, **env)["folder"]
    assert Path(other).name.startswith(f"fastopt-{fastopt.__version__}-generic-")
    assert Path(newer).name.startswith(f"fastopt-99.0-{llvm.get_host_cpu_name()}-")


@pytest.fixture
def _of_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels of this process lie in a user's cache folder from now on."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "user_cache_dir", lambda name, appauthor: str(tmp_path / name))
    monkeypatch.setattr(cache, "_warned", False)


@pytest.mark.usefixtures("_of_a_home")
def test_only_the_user_may_look_into_the_folder() -> None:
    assert cache.cache_of(files).cache_path == str(cache.folder())
    assert stat.S_IMODE(cache.folder().stat().st_mode) & 0o077 == 0


@pytest.mark.usefixtures("_of_a_home")
def test_a_folder_to_which_others_may_write_is_not_read() -> None:
    cache.folder().mkdir(parents=True)
    cache.folder().chmod(0o777)
    with pytest.warns(RuntimeWarning, match="all may write to it"):
        assert cache.cache_of(files).cache_path is None


def test_a_folder_that_is_there_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Made with an image, say, and used by somebody who can't write to it.
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache.Locator, "ensure_cache_path", lambda locator: (_ for _ in ()).throw(PermissionError))
    with pytest.raises(PermissionError):
        cache.Locator("file")
    cache.folder().mkdir()
    assert cache.Locator("file").get_cache_path() == str(cache.folder())


def test_without_a_home_there_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "user_cache_dir", lambda name, appauthor: f"~/.cache/{name}")
    with pytest.raises(OSError, match="no home folder"):
        cache.folder()


@pytest.mark.wide(by=lambda where: ("any",))
@pytest.mark.parametrize("where", ["HOME", "NUMBA_CACHE_DIR"])
def test_where_no_file_can_be_written_all_works_with_one_warning(package: Path, where: str) -> None:
    expected = fresh.run(STEP, package)["bits"]
    # A file in place of the folder to write to stops root, too.
    (package / "file").touch()
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": None, "HOME": str(package), "XDG_CACHE_HOME": None}
    env[where] = str(package / "file")
    result = fresh.run(UNCACHED, package, **env)
    assert result["bits"] == expected
    (warning,) = result["warnings"]
    assert "NUMBA_CACHE_DIR" in warning
    assert files(package) == []


@pytest.mark.wide(by=lambda suffix, kept: (suffix,))
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_cache_files_are_replaced(tmp_path: Path, suffix: str, kept: float) -> None:
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path)}
    cold = fresh.run(STEP, tmp_path, **env)
    (path,) = tmp_path.rglob(f"loop.*.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert fresh.run(STEP, tmp_path, **env)["bits"] == cold["bits"]
    healed = fresh.run(STEP, tmp_path, **env)
    assert (healed["hits"], healed["bits"]) == (1, cold["bits"])


RACE = """
dtype = os.environ["RACE_DTYPE"]
report(result=bits(run(dtype, cls=fastopt.SGD)[1]))
"""


@pytest.mark.parametrize("processes", [2, pytest.param(8, marks=pytest.mark.thorough)])
def test_processes_racing_over_two_dtypes(tmp_path: Path, processes: int) -> None:
    dtypes = ["float32", "float64"]
    alone = fresh.with_engine(tmp_path / "alone")
    expected = {dtype: fresh.run(RACE, tmp_path, RACE_DTYPE=dtype, NUMBA_CACHE_DIR=alone) for dtype in dtypes}
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path / "race")}
    for _ in range(2):  # cold, then warm
        racers = [(dtype, fresh.start(RACE, tmp_path, RACE_DTYPE=dtype, **env)) for dtype in dtypes * (processes // 2)]
        assert [fresh.finish(process) for _, process in racers] == [expected[dtype] for dtype, _ in racers]
    assert files(tmp_path / "race") == files(tmp_path / "alone")
