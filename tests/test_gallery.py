"""The pictures of the gallery are small, and their scripts draw them."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import fastopt

ROOT = Path(__file__).parent.parent
SCRIPTS = {path.stem: path for path in sorted((ROOT / "examples" / "gallery").glob("*.py"))}
PICTURES = {path.stem: path for path in sorted((ROOT / "docs" / "_static" / "gallery").iterdir())}
MOST = {".png": 100_000, ".gif": 300_000}


def test_each_picture_has_a_script_of_a_screen():
    assert PICTURES.keys() == SCRIPTS.keys()
    for name, path in SCRIPTS.items():
        text = path.read_text(encoding="utf-8")
        assert f"python examples/gallery/{name}.py {PICTURES[name].name}" in text
        assert text.count("\n") <= 80


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small(name):
    assert PICTURES[name].stat().st_size <= MOST[PICTURES[name].suffix]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_draw(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS[name].parent)
    script, out = importlib.import_module(name), tmp_path / PICTURES[name].name
    _, amount = inspect.signature(script.draw).parameters
    script.draw(out, **{amount: 2})
    assert out.read_bytes()[:4] == PICTURES[name].read_bytes()[:4]


def test_the_picture_of_the_landing_page_is_of_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    landing = importlib.import_module("landing")
    drawn = re.findall(r">([\d.,]+)(?: elements)?</text>", landing.PICTURE.read_text(encoding="utf-8"))
    assert drawn == re.findall(r">([\d.,]+)(?: elements)?</text>", landing.text()), "run python docs/landing.py"
    assert len(drawn) == len(landing.SIZES) * (2 + len(landing.OTHERS))


def test_each_optimizer_has_its_path_on_its_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    paths = importlib.import_module("figures").PATHS
    assert set(paths) == {name.lower() for name in fastopt.optimizers.__all__ if name != "Sophia"}  # which asks for curvatures
    for name in paths:
        page = (ROOT / "docs" / "optimizers" / f"{name}.md").read_text(encoding="utf-8")
        assert page.count(f"](../generated/figures/{name}.png)") == 1
