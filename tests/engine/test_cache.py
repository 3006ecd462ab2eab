"""Kernels are compiled once and found again, never stale, never another variant's; without a cache everything still works."""

from __future__ import annotations

import compileall
import importlib
import linecache
import py_compile
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import llvmlite.binding as llvm
import numba
import pytest

import fastopt
from fastopt.engine import cache, digest
from tests import fresh

STEP = """
opt, w = run(cls=fastopt.SGD)
(span,) = used(opt)
report(bits=bits(w), hits=span.cache_hits, misses=1 - span.cache_hits)
"""


# Of the rule that `STEP` runs.
EDITED = ("return theta - lr * g\n", "return theta - lr * (g + g)\n")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that a test may edit, in a folder to run in."""
    shutil.copytree(fresh.ROOT / "fastopt", tmp_path / "fastopt", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


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


@pytest.mark.wide(by=lambda **edit: ("any",))
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("optimizers/sgd.py", *EDITED),
        ("engine/storage.py", "i, dtype: dtype(source[i])", "i, dtype: dtype(source[i]) + dtype(source[i])"),
        ("engine/loop.py", "store(arrays, i, new, dtype, drawn", "store(arrays, i, old, dtype, drawn"),
    ],
)
def test_an_edited_source_is_never_served_stale(package: Path, file: str, old: str, new: str) -> None:
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": fresh.with_engine(package / "cache")}
    before = fresh.run(STEP, package, **env)
    source = package / "fastopt" / file
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    after = fresh.run(STEP, package, **env)
    assert after["bits"] != before["bits"]
    assert after["misses"] == 1


USER_RULE = """
sys.path.insert(0, os.getcwd())
import user_rule

class Own(fastopt.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
    def choose(self, hyper):
        return user_rule.own, ()
    def coefficients(self, hyper, t):
        return ()

opt, w = run(cls=Own)
report(bits=bits(w), w=float(w[0]), misses=1 - used(opt)[0].cache_hits)
"""


def users_rule(folder: Path, access: str, call: str) -> None:
    """Files with a rule of somebody's own, which calls a function of another file."""
    (folder / "user_modules.py").write_text("import user_helpers\n")
    (folder / "user_helpers.py").write_text(
        "import numpy as np\nfrom numba.extending import register_jitable\nSCALE = 1\n"
        "@register_jitable\ndef scaled(x):\n    return x * np.float32(SCALE)\n"
        "@register_jitable\ndef double(x, factor=np.float32(1)):\n    x = scaled(x) * factor\n    return x + x\n"
    )
    (folder / "user_rule.py").write_text(
        f"import fastopt\n{access}\n@fastopt.rule\ndef own(theta, g, lr):\n    return theta - lr * {call}(g)\n"
    )


every_edit = pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("user_helpers.py", "return x + x", "return x + x + x"),
        ("user_helpers.py", "SCALE = 1", "SCALE = 2"),
        ("user_helpers.py", "factor=np.float32(1)", "factor=np.float32(2)"),
        ("user_rule.py", "theta - lr", "theta + lr"),
    ],
)
every_access = pytest.mark.parametrize(
    ("access", "call"),
    [
        ("import user_helpers", "user_helpers.double"),
        ("from user_helpers import double", "double"),
        ("import user_modules", "user_modules.user_helpers.double"),
    ],
)


@pytest.fixture
def digest_of_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A function that imports the user's rule as the files are now, and gives its digest."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which would be taken for that of a file edited in the same second

    def found() -> str:
        for name in ("user_modules", "user_helpers", "user_rule"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        linecache.clearcache()
        return digest.digest(importlib.import_module("user_rule").own)

    return found


@every_edit
@every_access
def test_an_edited_helper_of_a_users_rule_changes_its_digest(
    tmp_path: Path, digest_of_the_rule: Callable[[], str], file: str, old: str, new: str, access: str, call: str
) -> None:
    users_rule(tmp_path, access, call)
    before = digest_of_the_rule()
    assert digest_of_the_rule() == before
    source = tmp_path / file
    source.write_text(source.read_text().replace(old, new))
    assert digest_of_the_rule() != before


@pytest.mark.wide(by=lambda **edit: ("any",))
@every_edit
@every_access
def test_an_edited_helper_of_a_users_rule_is_never_served_stale(
    tmp_path: Path, file: str, old: str, new: str, access: str, call: str
) -> None:
    users_rule(tmp_path, access, call)
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path / "cache")}
    before = fresh.run(USER_RULE, tmp_path, **env)
    again = fresh.run(USER_RULE, tmp_path, **env)
    assert (before["misses"], again["misses"], again["bits"]) == (1, 0, before["bits"])
    source = tmp_path / file
    source.write_text(source.read_text().replace(old, new))
    after = fresh.run(USER_RULE, tmp_path, **env)
    assert after["bits"] != before["bits"]


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


every_setting = pytest.mark.parametrize("setting", ["OPT", "BOUNDSCHECK", "LOOP_VECTORIZE"])


@every_setting
def test_settings_of_numba_are_in_the_digest(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_memory = digest.digest.__wrapped__
    before = without_memory(bytecode_only)
    monkeypatch.setattr(numba.config, setting, 17)
    assert without_memory(bytecode_only) != before


def in_a_tuple(sign: float) -> Callable[[float], float]:
    """A function that refers to another one by a tuple."""
    held = ("held", lambda x: sign * x)
    return lambda x: held[1](x)  # type: ignore[operator]


def test_functions_in_tuples_are_told_apart_by_what_they_do() -> None:
    functions = [in_a_tuple(sign) for sign in (1.0, 1.0, -1.0)]  # all at once, or they might have the same address
    one, same, other = map(digest.digest, functions)
    assert one == same
    assert one != other


def test_the_sources_of_the_engine_are_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted((fresh.ROOT / "fastopt" / "engine").glob("*.py"))
    assert [path.read_bytes() for path in paths if path.name != "__init__.py"] == digest._SOURCES
    without_memory = digest.digest.__wrapped__
    before = without_memory(bytecode_only)
    monkeypatch.setattr(digest, "_ENGINE", b"other sources")
    assert without_memory(bytecode_only) != before


@pytest.mark.thorough
@every_setting
def test_settings_of_numba_do_not_reach_kernels_of_other_processes(tmp_path: Path, setting: str) -> None:
    env = {"NUMBA_CACHE_DIR": fresh.with_engine(tmp_path / "cache")}
    odd = fresh.run(STEP, tmp_path, **env, **{f"NUMBA_{setting}": "1" if setting == "BOUNDSCHECK" else "0"})
    plain = fresh.run(STEP, tmp_path, **env)
    assert (odd["misses"], plain["misses"]) == (1, 1)
    assert plain["bits"] == odd["bits"]
    assert fresh.run(STEP, tmp_path, **env)["hits"] == 1


def test_a_package_in_an_archive_is_never_served_stale(package: Path) -> None:
    source = package / "fastopt" / "optimizers" / "sgd.py"
    text = source.read_text()
    results = []
    (package / "elsewhere").mkdir()
    folder = fresh.with_engine(package / "cache")
    for edited in (text, text.replace(*EDITED)):
        source.write_text(edited)
        archive = shutil.make_archive(str(package / "archive"), "zip", package, "fastopt")
        env = {"PYTHONPATH": archive, "NUMBA_CACHE_DIR": folder}
        results.append(fresh.run(STEP + "report(file=fastopt.__file__, bits=bits(w))", package / "elsewhere", **env))
    assert all("archive.zip" in result["file"] for result in results)
    assert results[0]["bits"] != results[1]["bits"]


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
    assert cache.cache_of(bytecode_only).cache_path == str(cache.folder())
    assert stat.S_IMODE(cache.folder().stat().st_mode) & 0o077 == 0


@pytest.mark.usefixtures("_of_a_home")
def test_a_folder_to_which_others_may_write_is_not_read() -> None:
    cache.folder().mkdir(parents=True)
    cache.folder().chmod(0o777)
    with pytest.warns(RuntimeWarning, match="all may write to it"):
        assert cache.cache_of(bytecode_only).cache_path is None


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


def bytecode_only(package: Path) -> None:
    """Leave nothing but bytecode, where imports find it without sources."""
    compileall.compile_dir(
        package / "fastopt", quiet=1, legacy=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )
    for path in (package / "fastopt").rglob("*.py"):
        path.unlink()


def test_bytecode_without_sources_is_cached_and_never_served_stale(package: Path, tmp_path: Path) -> None:
    source = package / "fastopt" / "optimizers" / "sgd.py"
    text = source.read_text()
    shutil.copytree(package / "fastopt", package / "sources" / "fastopt")
    script = STEP.replace("report(", "report(file=fastopt.__file__, ")
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": fresh.with_engine(tmp_path / "cache")}
    bytecode_only(package)
    before = fresh.run(script, package, **env)
    assert before["file"].endswith(".pyc")
    again = fresh.run(script, package, **env)
    assert (before["hits"], again["hits"], again["bits"]) == (0, 1, before["bits"])

    shutil.rmtree(package / "fastopt")
    shutil.copytree(package / "sources" / "fastopt", package / "fastopt")
    source.write_text(text.replace(*EDITED))
    bytecode_only(package)
    after = fresh.run(script, package, **env)
    assert after["hits"] == 0
    assert after["bits"] != before["bits"]


class Loader:
    """Of a module in a program that was packed into one file, which has neither sources nor files."""

    def __init__(self, code: object) -> None:
        self._code = code

    def get_source(self, name: str) -> None:
        return None

    def get_code(self, name: str) -> object:
        return self._code


def test_what_tells_modules_apart_without_files() -> None:
    sources = [
        digest._source_of(SimpleNamespace(__name__="module", __loader__=Loader(compile(code, "module", "exec"))))
        for code in ("x = 1", "x = 2")
    ]
    assert all(sources)
    assert sources[0] != sources[1]


def test_what_can_not_be_told_apart_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest._source_of(SimpleNamespace(__name__="module", __loader__=Loader(None))) == b""
    monkeypatch.setattr(cache, "HAS_SOURCES", False)
    monkeypatch.setattr(cache, "_warned", False)
    with pytest.warns(RuntimeWarning, match="neither sources nor bytecode"):
        assert cache.cache_of(bytecode_only).cache_path is None


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
