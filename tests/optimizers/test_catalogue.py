"""An optimizer is a class with all that belongs to it, and nobody lists it twice."""

import ast
import importlib.util
import inspect
import re

import pytest

import fastopt
from bench.cases import CASES
from tests.fresh import ROOT
from tests.table import TABLE

DOCS = ROOT / "docs"
FILES = [path for path in (ROOT / "fastopt" / "optimizers").glob("*.py") if path.name != "__init__.py"]
DEFINED = sorted(
    node.name
    for path in FILES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
)


@pytest.fixture(scope="module")
def catalogue():
    spec = importlib.util.spec_from_file_location("catalogue", DOCS / "catalogue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DEFINED)
def test_an_optimizer_is_exported_tested_measured_and_documented(name, catalogue):
    assert name in fastopt.optimizers.__all__
    assert name in fastopt.__all__
    optimizer = getattr(fastopt, name)
    assert issubclass(optimizer, fastopt.Optimizer)
    assert [row for row in TABLE if row.optimizer is optimizer]
    assert [case for case in CASES if case.optimizer is optimizer]
    assert ">>> " in optimizer.__doc__
    page = (DOCS / "optimizers" / f"{name.lower()}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert f"{{py:class}}`fastopt.{name}`" in page
    assert f":doc:`{name} </optimizers/{name.lower()}>`" in catalogue.table()


def test_public_optimizers_are_the_defined_ones():
    public = inspect.getmembers(fastopt, lambda value: inspect.isclass(value) and issubclass(value, fastopt.Optimizer))
    assert [name for name, value in public if value is not fastopt.Optimizer] == DEFINED
    assert {row.optimizer.__name__ for row in TABLE} == set(DEFINED)
    pages = {path.stem for path in (DOCS / "optimizers").glob("*.md")} - {"index"}
    assert pages == {name.lower() for name in DEFINED}


def built(page, catalogue, folder):
    """The text of a page with the lists that it includes."""
    catalogue.write(folder)
    include = r"^```\{include\} (?:\.\./)?generated/(.+)\n```$"
    text = page.read_text(encoding="utf-8")
    return re.sub(include, lambda match: (folder / match[1]).read_text(encoding="utf-8"), text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted({*fastopt.__all__, *fastopt.schedules.__all__} - {"schedules"}))
def test_every_public_name_is_in_the_reference(name, catalogue, tmp_path):
    assert built(DOCS / "api.md", catalogue, tmp_path).count(f"\n   {name}\n") == 1


def test_all_optimizers_are_on_their_first_page(catalogue, tmp_path):
    index = DOCS / "optimizers" / "index.md"
    text = built(index, catalogue, tmp_path)
    rows = re.findall(r"   \* - :doc:`(\w+) .*`\n     - (.+)\n     - (\d+)\n", text)
    assert sorted(name for name, _, _ in rows) == DEFINED
    assert {"SGD": "12", "AdaGrad": "20", "Adam": "28"}.items() <= {name: moved for name, _, moved in rows}.items()
    assert re.search(r":glob:\n\n\*\n```", text)
    assert "\noptimizers/index\n" in (DOCS / "index.md").read_text(encoding="utf-8")
    assert "(docs/optimizers/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_conf_writes_the_lists():
    # The pages include what catalogue.py writes; Sphinx itself is not needed to test the rest.
    assert "catalogue.write(GENERATED)" in (DOCS / "conf.py").read_text(encoding="utf-8")
