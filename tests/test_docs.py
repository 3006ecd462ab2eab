"""What the pages and docstrings show runs, and what they name exists."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import fastopt
from tests.fences import fences
from tests.peers import PEERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [
    ROOT / "README.md",
    CONTRIBUTING,
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "optimizers").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]
MODULES = [fastopt.__name__, *(module.name for module in pkgutil.walk_packages(fastopt.__path__, "fastopt."))]


def shell_commands():
    lines = [line for page in PAGES for _, text in fences(page, "bash") for line in text.splitlines()]
    return [command for line in lines for command in line.split(" && ")]


def needing(case, code, name):
    """A case of a test that runs code, with the mark ``peers`` if that imports one of them at its top level."""
    statements = ast.parse(code).body
    imported = [alias.name for each in statements if isinstance(each, ast.Import) for alias in each.names]
    imported += [each.module or "" for each in statements if isinstance(each, ast.ImportFrom)]
    needs = any(module.partition(".")[0] in PEERS for module in imported)
    return pytest.param(case, id=name, marks=[pytest.mark.peers] * needs)


def whole(page):
    return "".join(code for _, code in fences(page, "python"))


def source(module):
    """That of a module, which isn't imported for it; the packages around it may be."""
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


RUNNABLE = [page for page in PAGES if any(fences(page, "python"))]
IMPORTABLE = [name for name in MODULES if not name.endswith("__main__")]


def test_what_imports_peers_has_their_mark():
    for code, marks in [
        ("import numpy, torch.nn", 1),
        ("from jax import numpy", 1),
        ("import numpy as np", 0),
        ("from . import torch", 0),
        ("def later():\n    import torch", 0),
    ]:
        assert len(needing(None, code, None).marks) == marks, code
    assert needing(None, whole(ROOT / "docs" / "embedding.md"), None).marks
    assert needing(None, source("fastopt.torch"), None).marks


def test_pages_and_docstrings_have_examples():
    assert ROOT / "README.md" in RUNNABLE
    assert len(RUNNABLE) > len(fastopt.optimizers.__all__) >= 4
    assert {"fastopt.arrays.flat", "fastopt.optimizers.adam"} <= set(MODULES)


@pytest.mark.parametrize("page", [needing(page, whole(page), page.stem) for page in RUNNABLE])
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, code in fences(page, "python"):
        # Blank lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("module", [needing(name, source(name), name) for name in IMPORTABLE])
def test_doctests_pass(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_code_fits_into_the_column_of_a_page():
    # Longer lines would have to be scrolled; what a shell takes as one line is exempt.
    wide = [
        f"{page.name}:{line + i}"
        for page in PAGES
        for line, code in fences(page, r"(?!bash)[a-z{}\- ]+")
        for i, each in enumerate(code.splitlines())
        if len(each) > 88
    ]
    assert not wide


def test_the_options_of_every_optimizer_are_listed():
    explained = re.findall(r"^(\w+) : ", inspect.getdoc(fastopt.Optimizer), re.MULTILINE)
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    section = page.partition("## Options of every optimizer")[2].partition("\n## ")[0]
    listed = [name for row in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted({*explained} - {"params", "lr"})


def test_relative_links_lead_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8"))]
    assert len(links) > len(PAGES)
    missing = [link for page, link in links if "generated/" not in link and not (page.parent / link).exists()]
    assert not missing


def test_anchors_of_the_readme_lead_to_headings():
    # Those within the pages are Sphinx's to check.
    links = re.findall(r"\]\((docs/[^)#]*\.md)#([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    for path, anchor in links:
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_pages_install_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [extra for command in shell_commands() for extra in re.findall(r'-e "\.\[(.+)\]"', command)]
    assert len(named) >= 2
    for extra in ",".join(named).split(","):
        assert extra in extras


def test_pages_run_programs_that_exist(capsys, monkeypatch):
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = set(re.findall(r"python -m ((?:fastopt|bench)(?:[ .][a-z][a-z_-]*)*)", text))
    assert {"fastopt demo", "fastopt info", "fastopt bench", "fastopt warmup"} <= commands
    for command in commands:
        # With --help last, the arguments before it are checked, and nothing is run.
        program, *arguments = command.split()
        name = program if "." in program else f"{program}.__main__"
        monkeypatch.setattr(sys, "argv", [program, *arguments, "--help"])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(name).main()
        assert ended.value.code == 0, f"{command}: {capsys.readouterr().err}"


def test_commands_are_of_known_kinds():
    assert "pytest -n auto" in shell_commands()
    for command in shell_commands():
        assert command.split()[0] in {"apt-get", "mpiexec", "mypy", "nox", "pip", "pytest", "python", "ruff", "sphinx-build"}


def test_pages_run_tests_that_exist():
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+)(\[?))?", CONTRIBUTING.read_text(encoding="utf-8"))
    assert any(test for _, test, _ in named)
    for file, test, case in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8") or not test
        assert not case  # of a grid it may be a thorough one, and as rules come and go the cases take turns
