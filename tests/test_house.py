"""House rules that reading the source can check, and what an import may and may not do."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastopt
from tests import fresh
from tests.step import test_states_of_rows
from tests.table import TABLE

FAMILIES = {
    path.stem: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((Path(fastopt.__file__).parent / "optimizers").glob("*.py"))
    if path.name != "__init__.py"
}


def is_rule(function, decorators=("rule",)):
    return any(ast.unparse(decorator) in decorators for decorator in function.decorator_list)


FUNCTIONS = {
    f"{family}.{node.name}:{node.lineno}": node
    for family, tree in FAMILIES.items()
    for node in ast.walk(tree)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
}
RULES = {name: node for name, node in FUNCTIONS.items() if is_rule(node)}
COMPILED = {name: node for name, node in FUNCTIONS.items() if is_rule(node, ("rule", "part"))}
OTHERS = {name: node for name, node in FUNCTIONS.items() if not is_rule(node, ("rule", "part", "decision"))}

MODULES = ("rules", "schedules")

PUBLIC = {name: getattr(fastopt, name) for name in fastopt.__all__ if name not in MODULES}
PUBLIC |= {f"schedules.{name}": getattr(fastopt.schedules, name) for name in fastopt.schedules.__all__}
CLASSES = [value for value in PUBLIC.values() if inspect.isclass(value)]


def test_every_rule_is_in_the_table():
    modules = {family: importlib.import_module(f"fastopt.optimizers.{family}") for family in FAMILIES}
    rules = {getattr(modules[name.partition(".")[0]], node.name) for name, node in RULES.items()}
    made = [optimizer(np.ones((1, 1)), per_row=True) for optimizer, *_ in test_states_of_rows.CASES.values()]
    of_rows = {each.choose(each.param_groups[0].hyper)[0] for each in made}
    assert {row.rule for row in TABLE} | of_rows == rules


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_optimizer_chooses_what_the_table_says(row):
    optimizer = row.make(np.zeros(1))
    assert optimizer.choose(optimizer.param_groups[0]) == (row.rule, row.states)


@pytest.mark.parametrize("name", OTHERS)
def test_methods_are_annotated(name):
    function = OTHERS[name]
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bare = [a.arg for a in given if a is not None and a.annotation is None and a.arg not in ("self", "cls")]
    assert bare == []
    assert function.returns is not None


@pytest.mark.parametrize("name", COMPILED)
def test_rules_have_neither_numbers_nor_branches(name):
    # A literal is float64 to Numba, and would widen a float32 kernel; a branch keeps the loop out of vector registers.
    nodes = list(ast.walk(COMPILED[name]))
    numbers = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, complex))]
    branches = (ast.If, ast.IfExp, ast.While, ast.For, ast.Match, ast.BoolOp, ast.Try, ast.comprehension)
    assert numbers == []
    assert [ast.unparse(node) for node in nodes if isinstance(node, branches)] == []


def documented(docstring):
    """The names in the section "Parameters" of a numpydoc docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n\w[\w ]*\n-+\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
    lines = section[1].splitlines() if section else []
    return [name for line in lines if not line.startswith(" ") and line for name in line.split(" : ")[0].split(", ")]


def described():
    """Every public class, function and method, with the signature that its docstring explains."""
    for name, value in PUBLIC.items():
        # A Flat comes from flatten(), an Embedded from embed(), not from their constructors, and an error from a step.
        yield (
            name,
            value,
            []
            if value in (fastopt.Flat, fastopt.Embedded, fastopt.RuleError)
            else list(inspect.signature(value).parameters.values()),
        )
    for cls in CLASSES:
        for base in (base for base in cls.__mro__ if base.__module__.startswith("fastopt")):
            for name, method in vars(base).items():
                if not name.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
                    parameters = inspect.signature(method).parameters if inspect.isfunction(method) else {"self": None}
                    yield f"{base.__name__}.{name}", method, list(parameters.values())[1:]


DESCRIBED = {name: (value, parameters) for name, value, parameters in described()}


@pytest.mark.parametrize("name", DESCRIBED)
def test_docstrings_explain_every_parameter(name):
    value, parameters = DESCRIBED[name]
    docstring = inspect.getdoc(value)
    assert docstring
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]
    assert documented(docstring) == names


def test_public_names_are_those_of_all():
    public = {name for name, value in vars(fastopt).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    visible = public | set(MODULES)
    assert sorted(visible) == sorted(fastopt.__all__)


DOCSTRING = """Sum.

Parameters
----------
a, b : int
    Two.
**c
    More.

Returns
-------
int
"""


def test_documented_reads_numpydoc():
    assert documented(DOCSTRING) == ["a", "b", "**c"]
    assert documented("No section") == []


# Each room may import from those before it.
ROOMS = (
    *("engine", "description", "arrays", "schedules", "step", "saving", "optimizer", "optimizers", "rules"),
    *("bridges", "capi", "torch", "mpi", "minimization", "commands", "__init__", "__main__"),
)
PACKAGE = Path(fastopt.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


BESIDE_THE_ROOMS = {"__init__", "__main__", "optimizer"}
TESTS = fresh.ROOT / "tests"


def room(file):
    return file.partition("/")[0]


def imported(path, at_import):
    """The modules of the package that a file imports, when it is imported itself or at any time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_import else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "fastopt":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastopt."):
            yield node.module.removeprefix("fastopt.").replace(".", "/")


def test_three_modules_stand_beside_the_rooms():
    assert {file for file in FILES if "/" not in file} == BESIDE_THE_ROOMS
    assert {room(file) for file in FILES} == set(ROOMS)


def test_tests_are_in_rooms_of_the_same_names():
    rooms = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert rooms == {*ROOMS} - BESIDE_THE_ROOMS | {".", "bench"}


@pytest.mark.parametrize("file", FILES)
def test_rooms_import_only_from_those_below(file):
    above = ROOMS[ROOMS.index(room(file)) + 1 :]
    wrong = [module for module in imported(FILES[file], at_import=False) if room(module) in above]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    graph = {file.removesuffix("/__init__"): set(imported(path, at_import=True)) for file, path in FILES.items()}
    while graph:
        free = [file for file, modules in graph.items() if not modules & graph.keys() - {file}]
        assert free, f"a circle among {sorted(graph)}"
        for file in free:
            del graph[file]


@pytest.mark.parametrize("file", FILES)
def test_files_have_one_subject(file):
    assert FILES[file].read_text(encoding="utf-8").count("\n") <= 400


IMPORT = """
import json, sys, threading
from numba.core import event
import numba.np.ufunc.parallel as parallel
before = set(sys.modules)
with event.install_recorder("numba:compile") as compilations:
    import fastopt
print(json.dumps({
    "packages": sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names),
    "compilations": len(compilations.buffer),
    "numba_threads": parallel._is_initialized,
    "threads": threading.active_count(),
}))
"""


def test_an_import_adds_nothing_to_that_of_numba(tmp_path):
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, cwd=tmp_path, env=fresh.environment(), check=True, capture_output=True, text=True)
    # Submodules of Numba itself are loaded on demand; matplotlib, scikit-learn, tqdm, torch, SciPy and the like are not.
    found = json.loads(done.stdout)
    assert set(found.pop("packages")) - {"numba", "numpy", "llvmlite"} == {"fastopt"}
    assert found == {"compilations": 0, "numba_threads": False, "threads": 1}
