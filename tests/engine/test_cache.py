"""Kernels are compiled once and found again, never stale, never another variant's; without a cache everything still works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import fresh

STEP = """
opt, w = run()
(span,) = used(opt)
report(bits=bits(w), hits=span.cache_hits, misses=1 - span.cache_hits)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that a test may edit, in a folder to run in."""
    shutil.copytree(fresh.ROOT / "fastopt", tmp_path / "fastopt", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.nb?"))


def test_second_process_hits_with_the_same_files_and_bits(tmp_path: Path) -> None:
    cold = fresh.run(STEP, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    after_cold = files(tmp_path)
    warm = fresh.run(STEP, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    assert (cold["hits"], cold["misses"]) == (0, 1)
    assert (warm["hits"], warm["misses"]) == (1, 0)
    assert warm["bits"] == cold["bits"]
    # One index and one object file for the one span that ran, and for the function that runs all spans.
    assert files(tmp_path) == after_cold
    assert len(after_cold) == 4


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("optimizers/adam.py", "* normalized(m, v, eps_root, eps)", "* normalized(m, v, eps_root, eps + eps)"),
        ("engine/storage.py", "dtype(source[i])", "dtype(source[i]) + dtype(source[i])"),
        ("engine/loop.py", "store(arrays, i, new, dtype)", "store(arrays, i, old, dtype)"),
    ],
)
def test_an_edited_source_is_never_served_stale(package: Path, file: str, old: str, new: str) -> None:
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(package / "cache")}
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


@pytest.mark.wide
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("user_helpers.py", "return x + x", "return x + x + x"),
        ("user_helpers.py", "SCALE = 1", "SCALE = 2"),
        ("user_helpers.py", "factor=np.float32(1)", "factor=np.float32(2)"),
        ("user_rule.py", "theta - lr", "theta + lr"),
    ],
)
@pytest.mark.parametrize(
    ("access", "call"),
    [
        ("import user_helpers", "user_helpers.double"),
        ("from user_helpers import double", "double"),
        ("import user_modules", "user_modules.user_helpers.double"),
    ],
)
def test_an_edited_helper_of_a_users_rule_is_never_served_stale(
    tmp_path: Path, file: str, old: str, new: str, access: str, call: str
) -> None:
    (tmp_path / "user_modules.py").write_text("import user_helpers\n")
    (tmp_path / "user_helpers.py").write_text(
        "import numpy as np\nfrom numba.extending import register_jitable\nSCALE = 1\n"
        "@register_jitable\ndef scaled(x):\n    return x * np.float32(SCALE)\n"
        "@register_jitable\ndef double(x, factor=np.float32(1)):\n    x = scaled(x) * factor\n    return x + x\n"
    )
    (tmp_path / "user_rule.py").write_text(
        f"import fastopt\n{access}\n@fastopt.rule\ndef own(theta, g, lr):\n    return theta - lr * {call}(g)\n"
    )
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
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
    opt, w = run(size=5000)
    stats = step_dispatcher(mode == "parallel").stats
    found[mode] = [bits(w), is_parallel(opt), sum(stats.cache_hits.values()), used(opt)[0].cache_hits]
report(**found)
"""


def test_one_span_serves_serial_and_parallel_steps(tmp_path: Path) -> None:
    env = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}
    for hits in (0, 1):
        result = fresh.run(BOTH, tmp_path, **env)
        assert result["serial"] == [result["parallel"][0], False, hits, hits]
        assert result["parallel"][1:] == [True, hits, hits]
        assert len(files(tmp_path)) == 6


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NUMBA_OPT", "0"),
        pytest.param("NUMBA_BOUNDSCHECK", "1", marks=pytest.mark.thorough),
        pytest.param("NUMBA_LOOP_VECTORIZE", "0", marks=pytest.mark.thorough),
    ],
)
def test_settings_of_numba_do_not_reach_kernels_of_other_processes(tmp_path: Path, setting: str, value: str) -> None:
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    odd = fresh.run(STEP, tmp_path, **env, **{setting: value})
    plain = fresh.run(STEP, tmp_path, **env)
    assert (odd["misses"], plain["misses"]) == (1, 1)
    assert plain["bits"] == odd["bits"]
    assert fresh.run(STEP, tmp_path, **env)["hits"] == 1


def test_a_package_in_an_archive_is_never_served_stale(package: Path) -> None:
    source = package / "fastopt" / "optimizers" / "adam.py"
    text = source.read_text()
    results = []
    (package / "elsewhere").mkdir()
    for edited in (text, text.replace("* normalized(m, v, eps_root, eps)", "* normalized(m, v, eps_root, eps + eps)")):
        source.write_text(edited)
        archive = shutil.make_archive(str(package / "archive"), "zip", package, "fastopt")
        env = {"PYTHONPATH": archive, "NUMBA_CACHE_DIR": str(package / "cache")}
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
    opt, w = run()
    run(dtype="float64")
report(bits=bits(w), warnings=[str(c.message) for c in caught])
"""


def test_read_only_install_without_a_home_works_uncached_with_one_warning(package: Path, tmp_path: Path) -> None:
    expected = fresh.run(STEP, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))["bits"]
    # A file in place of each folder to write to stops root, too.
    (package / "fastopt/engine/__pycache__").touch()
    env = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": None, "HOME": "/dev/null", "XDG_CACHE_HOME": None}
    result = fresh.run(UNCACHED, package, **env, PYTHONDONTWRITEBYTECODE="1")
    assert result["bits"] == expected
    assert len(result["warnings"]) == 1
    assert "NUMBA_CACHE_DIR" in result["warnings"][0]


@pytest.mark.parametrize("folder", [None, "file"])
def test_without_a_home_or_with_an_impossible_folder_the_install_itself_is_the_cache(
    package: Path, tmp_path: Path, folder: str | None
) -> None:
    expected = fresh.run(STEP, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))["bits"]
    (package / "file").touch()
    env = {"PYTHONPATH": str(package), "HOME": None, "NUMBA_CACHE_DIR": folder and str(package / folder)}
    for hits in (0, 1):
        result = fresh.run(STEP, package, **env)
        assert (result["bits"], result["hits"]) == (expected, hits)


@pytest.mark.wide
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_cache_files_are_replaced(tmp_path: Path, suffix: str, kept: float) -> None:
    env = {"NUMBA_CACHE_DIR": str(tmp_path)}
    cold = fresh.run(STEP, tmp_path, **env)
    paths = list(tmp_path.rglob(f"*.{suffix}"))
    assert len(paths) == 2
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
    assert fresh.run(STEP, tmp_path, **env)["bits"] == cold["bits"]
    healed = fresh.run(STEP, tmp_path, **env)
    assert (healed["hits"], healed["bits"]) == (1, cold["bits"])


RACE = """
dtype = os.environ["RACE_DTYPE"]
results = [bits(run(dtype, cls=cls)[1]) for cls in (fastopt.SGD, fastopt.Adam)]
report(results=results)
"""


@pytest.mark.parametrize("processes", [2, pytest.param(8, marks=pytest.mark.thorough)])
def test_processes_racing_over_two_dtypes(tmp_path: Path, processes: int) -> None:
    dtypes = ["float32", "float64"]
    expected = {dtype: fresh.run(RACE, tmp_path, RACE_DTYPE=dtype, NUMBA_CACHE_DIR=str(tmp_path / "alone")) for dtype in dtypes}
    for _ in range(2):  # cold, then warm
        env = {"NUMBA_CACHE_DIR": str(tmp_path / "race")}
        racers = [(dtype, fresh.start(RACE, tmp_path, RACE_DTYPE=dtype, **env)) for dtype in dtypes * (processes // 2)]
        assert [fresh.finish(process) for _, process in racers] == [expected[dtype] for dtype, _ in racers]
    assert files(tmp_path / "race") == files(tmp_path / "alone")
