"""What tells kernels apart: whatever their sources come to, code of other sources is never taken for theirs."""

from __future__ import annotations

import compileall
import importlib
import linecache
import py_compile
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest

from fastopt.engine import cache, digest
from tests import fresh
from tests.engine.test_cache import STEP

# Of the rule that `STEP` runs.
EDITED = ("return theta - lr * g\n", "return theta - lr * (g + g)\n")


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
