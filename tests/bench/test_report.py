"""What is measured for the report, and what the report and the pages say of it."""

import contextlib
import importlib.util
import json
import os
import re

import numpy as np
import pytest

import fastopt
from bench import guard, in_cache, latency, plan, report, startup, threshold
from bench.__main__ import main
from bench.cases import CASES, SIZES, with_option
from bench.contenders import CONTENDERS, LIMIT, OURS
from bench.options import OPTIONS
from fastopt.__main__ import main as fastopt_main
from tests.fresh import ROOT

OTHERS = CONTENDERS[2:]


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setenv("NPROC", "1")  # main sets it for JAX
    yield
    assert fastopt.get_parallel_threshold() is None


def case_named(name):
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("cells", [plan.report, plan.quick], ids=["report", "quick"])
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_no_cell_is_measured_twice(cells, threads):
    found = [(c.case.name, c.case.option, c.dtype, c.size, c.threads) for c in cells(threads)]
    assert len(set(found)) == len(found)
    assert {c[4] for c in found} == {n for n in (1, 2, 4, 8, 16) if n <= threads}


def test_the_report_has_every_optimizer_size_dtype_and_option():
    cells = list(plan.report(2))
    assert {c.case.name for c in cells} == {case.name for case in CASES}
    assert {c.case.option for c in cells} == {"none", *OPTIONS}
    assert {c.dtype for c in cells} == {"float32", "float64"}
    for name in plan.HEADLINE:
        assert {c.size for c in cells if c.case.name == name and not c.only} >= {10**n for n in range(3, 9)}
    assert max(c.size for c in cells) == 3 * 10**8


def test_contenders_of_the_plan_exist():
    names = {contender.name for contender in CONTENDERS}
    assert {name for cell in plan.report(2) for name in (*cell.only, *cell.without)} <= names


@pytest.mark.parametrize(("option", "numbers"), [("maximize", 7), ("ema_decay", 9), ("clip_norm", 8), ("cautious", 11)])
def test_traffic_counts_what_options_move(option, numbers):
    assert with_option(case_named("Adam"), option).traffic(10, "float32") == 4 * 10 * numbers


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_can_be_measured(option):
    case = with_option(case_named("Adam"), option)
    _, theta, g, lr = case.problem(10, "float32")
    case.start(theta, lr).step(g)
    assert np.all(theta != 0)


def table_of(out):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]


def test_command_prints_a_table_and_writes_json(capsys, tmp_path):
    path = tmp_path / "times.json"
    command = ["--quick", "--size", "1000", "--optimizer", "Adam", "--option", "none", "clip_norm", "--dtype", "float32"]
    main([*command, "--contender", LIMIT, "in-place NumPy", "--json", str(path)])
    out = capsys.readouterr().out
    assert "1,000 elements" in out
    header, _, row, with_clipping = table_of(out)
    present = [other.name for other in OTHERS if not other.missing]
    assert header == ["optimizer", "dtype", OURS, "GB/s", "of limit", *present]
    assert row[:2] == ["Adam", "float32"]
    assert row[2].endswith(("µs", "ms"))
    assert [name for name, cell in zip(header[5:], row[5:], strict=True) if cell != "-"] == ["in-place NumPy"]
    assert with_clipping[0] == "Adam, clip_norm"
    first, second = json.loads(path.read_text())["results"]
    assert (first["optimizer"], first["option"], first["size"], first["bytes"]) == ("Adam", "none", 1000, 28_000)
    assert second["option"] == "clip_norm"
    assert set(first["seconds"]) == {OURS, LIMIT, "in-place NumPy"}
    assert set(second["seconds"]) == {OURS, LIMIT}
    assert len(first["seconds"][OURS]) == 3


# The second name stands for all that begin with it.
every_name = pytest.mark.parametrize("name", ["SGD momentum", pytest.param("SGD", marks=pytest.mark.thorough)])


@every_name
def test_command_measures_several_numbers_of_threads(name, capsys):
    command = ["--quick", "--size", "1e3", "--optimizer", name, "--dtype", "float32", "--threads", "1", "2"]
    main([*command, "--contender", LIMIT])
    out = capsys.readouterr().out
    assert "1,000 elements, 1 threads" in out
    assert "1,000 elements, 2 threads" in out


def test_command_says_what_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    main(["--quick", "--size", "1e14", "--optimizer", "SGD momentum", "--dtype", "float64"])
    out = capsys.readouterr().out
    assert "PyTorch fused is left out: torch must be installed" in out
    assert "optax under jit is left out: jax and optax must be installed" in out
    assert "SGD momentum, float64, 100,000,000,000,000 elements: no memory for fastopt, streaming limit" in out
    assert "SGD rate vector" not in out


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(threshold, "NAMES", ("SGD",))
    monkeypatch.setattr(threshold, "SIZES", (1_000, 50_000))
    monkeypatch.setattr(threshold, "SETTLING_STEPS", 20)
    monkeypatch.setattr(startup, "SIZES", (1_000,))
    monkeypatch.setattr(startup.tempfile, "TemporaryDirectory", lambda: contextlib.nullcontext(os.environ["NUMBA_CACHE_DIR"]))


@every_name
@pytest.mark.usefixtures("_short")
def test_the_report_is_one_file_with_everything(name, tmp_path):
    html, measured = tmp_path / "report.html", tmp_path / "measured.json"
    command = ["bench", "--quick", "--size", "1e3", "2e3", "--optimizer", name, "--dtype", "float32"]
    command += ["--threads", "1", "2"]
    command += ["--option", "none", "maximize", "--contender", LIMIT, "in-place NumPy"]
    assert fastopt_main([*command, "--html", str(html), "--json", str(measured)]) == 0
    text = html.read_text(encoding="utf-8")
    headings = ["Machine", "Memory traffic, and its limit", "How many times as long others take", "1,000 elements, 2 threads"]
    headings += ["Options", "Threads", "How many threads", "In the cache, against C", "Latency", "Cold start"]
    assert re.findall("<h2>(.*)</h2>", text) == [*headings[:4], "2,000 elements, 2 threads", *headings[4:]]
    assert text.count("<svg") == 6
    assert not re.search(r"(src|href)=.https?:", text)
    data = json.loads(measured.read_text())
    assert {"CPU", "date", "numba", "numpy"} <= data["environment"].keys()
    assert {"import numba", "second step of Adam, 1,000 elements"} <= data["startup"].keys()


def test_losing_cells_look_like_winning_ones():
    record = {"optimizer": "SGD", "option": "none", "dtype": "float32", "size": 1000, "bytes": 12_000}
    seconds = {OURS: [2e-6, 2e-6], LIMIT: [1e-6, 1e-6], "faster": [1e-6, 1.2e-6], "slower": [4e-6, 4.4e-6]}
    cells = report.cells(record | {"seconds": seconds}, ["faster", "slower", "absent"])
    assert cells == ["SGD", "float32", "1,000", "2.00 µs", "6.0", "50%", "0.55", "2.10", "-"]


def test_chosen_threads_are_compared_with_the_better_of_both(monkeypatch):
    monkeypatch.setattr(threshold, "NAMES", ("Adam",))
    monkeypatch.setattr(threshold, "SETTLING_STEPS", 20)
    (result,) = threshold.measured([1_000], 3, 0.001)
    assert set(result.seconds) == {"chosen", "one thread", "all threads"}
    result.seconds.update({"chosen": [3.0, 4.0, 5.0], "one thread": [2.0, 9.0, 9.0], "all threads": [9.0, 4.0, 4.0]})
    assert threshold.excess(result) == 1.25


@pytest.mark.wide
@pytest.mark.parametrize("flags", in_cache.FLAGS.values(), ids=list(in_cache.FLAGS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", in_cache.BODIES)
def test_loops_in_c_take_the_same_steps(name, dtype, flags):
    case = case_named(name)
    _, theta, g, lr = case.problem(1000, dtype)
    case.start(theta, lr).step(g)
    step, in_c = in_cache.start(case, 1000, dtype, flags, 1)
    step()
    # Where an average is the difference of products, C may round once instead of three times.
    np.testing.assert_allclose(in_c, theta, rtol=16 * np.finfo(dtype).eps)


def test_loops_in_c_are_compared(capsys):
    in_cache.main(["--size", "1000", "--rounds", "2"])
    rows = capsys.readouterr().out.splitlines()[3:]
    assert len(rows) == 2 * len(in_cache.BODIES)
    assert all(re.search(r" us( +[\d.]+ \([\d.]+ to [\d.]+\)){2} *$", row) for row in rows)


def test_latencies_rise_with_their_share():
    found = latency.quantiles(200)
    assert len(found) == 10
    for seconds in found.values():
        assert list(seconds.values()) == sorted(seconds.values())
        assert list(seconds) == [f"{share:g}" for share in latency.SHARES]


def test_the_guard_names_what_got_worse(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "baseline.json")

    def measured(seconds):
        record = {"optimizer": "Adam", "option": "none", "dtype": "float32", "size": 1000, "threads": 2, "bytes": 1}
        path = tmp_path / "measured.json"
        path.write_text(json.dumps({"results": [{**record, "seconds": {OURS: [seconds], "PyTorch fused": [3.0]}}]}))
        return str(path)

    assert guard.main([measured(1.0), "--write"]) == 0
    assert guard.main([measured(1.1)]) == 0
    assert "nothing got worse, of 1 ratios" in capsys.readouterr().out
    assert guard.main([measured(2.0)]) == 1
    assert capsys.readouterr().out == "Adam, float32, 1,000 elements, 2 threads, against PyTorch fused: 1.50 instead of 3.00\n"
    shapes = tmp_path / "shapes.json"
    seconds = {OURS: [1.0, 2.0, 4.0], "plain": [1.0, 1.0, 1.0]}
    shapes.write_text(json.dumps([{"shape": "a list", "bar": 1.3, "against": "plain", "seconds": seconds}]))
    assert guard.main([str(shapes), "--write"]) == 0
    assert json.loads(guard.BASELINE.read_text())["a list, against plain"] == 0.5
    assert guard.main([measured(1.0), str(shapes)]) == 0
    assert "nothing got worse, of 2 ratios" in capsys.readouterr().out


@pytest.fixture(scope="module")
def measurements():
    spec = importlib.util.spec_from_file_location("measurements", ROOT / "docs" / "measurements.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_measurements_is_made_of_the_committed_file(measurements, tmp_path):
    measurements.write(tmp_path)
    page = (tmp_path / "measured.md").read_text(encoding="utf-8")
    for name in plan.HEADLINE:
        for size in SIZES:
            assert re.search(rf"^\| {name} \| float32 \| {size:,} \|", page, re.MULTILINE), (name, size)
    figures = re.findall(r"\]\(generated/figures/(.+)\)", page)
    assert len(figures) > 5
    assert all((tmp_path / "figures" / name).read_text(encoding="utf-8").startswith("<svg") for name in figures)
    titles = re.findall("^## (.+)$", page, re.MULTILINE)
    assert len(set(titles)) == len(titles)
    assert "measurements.write(GENERATED)" in (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")


def test_the_readme_says_with_what_it_was_measured(measurements):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = measurements.load()["environment"]
    assert all(word in readme for word in found["CPU"].split()[:2])
    for name, key in (("PyTorch", "torch"), ("JAX", "jax")):
        assert f"{name} {'.'.join(found[key].split('.')[:2])}" in readme
    assert f"optax {found['optax']}" in readme
