"""What a release promises: its public names, its types, and packages that are the same whenever they are built."""

import hashlib
import importlib
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import fastopt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, BUILDERS = PYPROJECT["project"], PYPROJECT["build-system"]["requires"]
RECIPE = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))


def test_public_names_are_those_that_were_promised():
    promised = (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").split()
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [
        *fastopt.__all__,
        "torch.wrap",
        *re.findall(r"^(?: +|\.\. py:data:: )((?:capi|mpi)\.[\w.]+)$", reference, re.MULTILINE),
    ]
    for module in (fastopt.rules, fastopt.schedules):
        names += [f"{module.__name__.removeprefix('fastopt.')}.{name}" for name in module.__all__]
    # One that goes breaks programs, and one that comes is a promise: see docs/versions.md.
    assert sorted(names) == promised
    for module in ("capi.library", "mpi"):
        importlib.import_module(f"fastopt.{module}")
    for name in set(names) - {"torch.wrap"}:  # which needs PyTorch
        assert operator.attrgetter(name)(fastopt)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    own = (citation["title"], citation["version"], citation["license"], citation["abstract"])
    assert own == (PROJECT["name"], fastopt.__version__, PROJECT["license"], PROJECT["description"])


def test_the_recipe_says_what_the_project_says():
    about, context = RECIPE["about"], RECIPE["context"]
    host, run = ([each.replace(" ", "") for each in RECIPE["requirements"][key][1:]] for key in ("host", "run"))
    assert context["version"] == fastopt.__version__
    assert f">={context['python_min']}" == PROJECT["requires-python"]
    assert (run, host) == (PROJECT["dependencies"], [*BUILDERS, "pip"])
    assert set(BUILDERS) <= set(PROJECT["optional-dependencies"]["test"])
    assert (about["summary"], about["license"]) == (PROJECT["description"], PROJECT["license"])
    assert [about["license_file"]] == PROJECT["license-files"]
    entries = dict(each.split(" = ") for each in RECIPE["build"]["python"]["entry_points"])
    assert entries == PROJECT["scripts"]


def test_the_recipe_needs_nothing_that_it_does_not_set():
    text = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{\{ (\w+) \}\}", text)) == set(RECIPE["context"])


def test_the_recipe_takes_a_step():
    (scripts,) = (each["script"] for each in RECIPE["tests"] if "script" in each)
    (code,) = (shlex.split(line)[2] for line in scripts if line.startswith("python -c "))
    assert ".step(" in code
    exec(code, {})


def test_checkpoints_of_the_first_release_are_read():
    # The file is what 1.0.0 wrote after the first three of these steps. It is not to be written anew.
    params = {"table": np.zeros((2, 3)), "bias": np.zeros(3)}
    opt, epoch = fastopt.Adam(params, ema_decay=0.5), np.array(0)
    fastopt.load(ROOT / "tests" / "checkpoint-1.0.npz", opt, epoch=epoch)
    assert (opt.step_count, int(epoch), opt.lr, opt.betas) == (3, 7, 0.125, (0.5, 0.75))
    trained(opt, steps=range(3, 5))
    alone = fastopt.Adam(start(), lr=0.125, betas=(0.5, 0.75), ema_decay=0.5)
    trained(alone, steps=range(5))
    for ours, theirs in ((opt.params, alone.params), (opt.state["v"], alone.state["v"]), (opt.ema, alone.ema)):
        assert all(np.allclose(ours[key], theirs[key], rtol=1e-12, atol=0) for key in params)


def start():
    return {"table": np.ones((2, 3)), "bias": np.arange(3.0)}


def trained(opt, steps):
    for step in steps:
        opt.step({key: p - step for key, p in opt.params.items()})


def built(source, out, **how):
    """Digests of the sdist and the wheel of a copy of the sources, by their names."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, **how)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def written_anew(source):
    """Write all files of a folder in another order, at another time, for nobody else to read."""
    for path in sorted(filter(Path.is_file, source.rglob("*")), reverse=True):
        content, mode = path.read_bytes(), path.stat().st_mode & 0o700
        path.unlink()
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (0, 10**9))


def test_packages_are_the_same_whenever_they_are_built(tmp_path):
    one, another = tmp_path / "one", tmp_path / "another"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "_build", "generated", "*.egg-info")
    for source in (one, another):
        shutil.copytree(ROOT, source, ignore=left_out)
    written_anew(another)
    first = built(one, tmp_path / "first")
    elsewhere = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    second = built(another, tmp_path / "second", umask=0o077, env=elsewhere)
    assert sorted(first) == [f"fastopt-{fastopt.__version__}-py3-none-any.whl", f"fastopt-{fastopt.__version__}.tar.gz"]
    assert first == second


# What users write, and what mypy has to know of it.
PROGRAM = """
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastopt
from fastopt.capi import address, library
from fastopt.schedules import Cosine, Warmup
from fastopt.torch import wrap


def train(steps: int) -> float:
    w = np.zeros(10, np.float32)
    opt = fastopt.AdamW(w, lr=Warmup(Cosine(1e-3, steps=steps), steps=2), betas=(0.9, 0.99), weight_decay=0.1, clip_norm=1.0)
    for _ in range(steps):
        opt.step(np.ones(10, np.float32))
    opt.lr = 1e-4
    opt.param_groups[0]["lr"] = 1e-3
    again = fastopt.AdamW(w)
    again.load_state_dict(opt.state_dict())
    return float(w[0]) + again.step_count


def gradient(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * x


def fit() -> float:
    result = fastopt.minimize(lambda x: float(x @ x), np.ones(3), jac=gradient, options={"lr": 0.1})
    solver = fastopt.Solver(np.ones(3), "adam", lr=0.1)
    while not solver.done:
        x = solver.ask()
        solver.tell(float(x @ x), gradient(x))
    return float(result.fun)


def groups() -> list[fastopt.Optimizer]:
    flat = fastopt.flatten({"w": np.zeros(3)})
    made = [fastopt.SGD(flat, lr=0.1, momentum=0.9), fastopt.Lion(np.zeros(3))]
    fastopt.set_num_threads(fastopt.get_num_threads())
    return [*made]


def checkpoints(path: Path) -> int:
    table = np.zeros((100, 4), np.float32)
    opt = fastopt.AdaGrad(table, lr=0.1, per_row=True, bounds=(0.0, None), state_dtype="bfloat16", rounding="stochastic")
    opt.step_rows(np.array([3, 5]), np.ones((2, 4), np.float32))
    fastopt.save_async(path, opt, epoch=3).result()
    fastopt.load(path, opt)
    with opt.swap_ema():
        return opt.skipped_steps


def trials() -> tuple[float, str, bool]:
    check = fastopt.check_gradient(lambda x: float(x @ x), np.ones(3), jac=gradient)
    found = fastopt.find_lr(lambda x: float(x @ x), np.ones(3), jac=gradient)
    return found.lr, check.verdict, bool(check)


@fastopt.rule(state="m", hyper="lr beta=0.9")
def signum(theta, g, lr, m, beta, one_minus_beta):  # type: ignore[no-untyped-def]
    m = beta * m + one_minus_beta * g
    return theta - lr * np.sign(m), m


def own() -> float:
    opt = signum(np.zeros(3), lr=0.1, beta=0.5)
    opt.step(np.ones(3))
    return opt.step_count + float(opt.state["m"][0])


def loops(theta: NDArray[np.float32]) -> tuple[float, int, list[Path]]:
    fastopt.warmup(fastopt.SGD(theta, momentum=0.9), gradient_dtype=np.float32)
    embedded = fastopt.embed(fastopt.SGD, np.float32, lr=0.1, momentum=0.9)
    embedded.step(theta, theta, embedded.states(theta), embedded.row(1), 0, theta.size)
    made = library.write(Path("c"), optimizers=["adam"])
    return float(theta[0]), address("adam", np.float32), made


def elsewhere(states: dict[str, Any], model: Any) -> dict[str, Any]:
    method = fastopt.scipy_method("adam", lr=0.1)
    method(lambda x: float(x @ x), np.ones(3), jac=gradient)
    wrapped = wrap(fastopt.AdamW, model.parameters(), lr=1e-3)
    wrapped.load_state_dict(wrapped.state_dict())
    opt = fastopt.Adam(np.zeros(3))
    fastopt.from_torch_state_dict(opt, states)
    saved: dict[str, Any] = opt.state_dict(copy=False)
    opt.load_state_dict(saved)
    return fastopt.to_torch_state_dict(opt)
"""

MISTAKES = """
import numpy as np
import fastopt

fastopt.Adam(np.zeros(3), betas=0.9)
fastopt.Adam(np.zeros(3), learning_rate=0.1)
"""


@pytest.mark.thorough
def test_programs_of_users_have_types(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py", "mistakes.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT)})
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [error.partition(":")[0] for error in errors] == ["mistakes.py"] * 2, done.stdout
    assert '"betas"' in errors[0]
    assert '"learning_rate"' in errors[1]
