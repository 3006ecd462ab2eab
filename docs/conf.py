"""How Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs docs/_build``. It needs no network."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.ext.autosummary.generate import generate_autosummary_docs
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

import fastopt
from fastopt.description.fields import Field

DOCS = Path(__file__).parent
GENERATED = DOCS / "generated"
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import catalogue  # noqa: E402  found through the line above
import figures  # noqa: E402
import measurements  # noqa: E402

project = "fastopt"
copyright = "2026, the fastopt developers"
author = "the fastopt developers"
version = release = fastopt.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build", "_templates", "generated/*.md"]  # the last are included by pages
templates_path = ["_templates"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_inherit_docstrings = False  # an optimizer's page shows what is its own; the rest is on Optimizer's
autodoc_mock_imports = ["torch"]  # these pages are built without it, too
autodoc_typehints = "none"  # the docstrings have the types in words
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"fastopt {release}"
html_static_path = ["_static"]
html_css_files = ["math.css", "tables.css"]
html_copy_source = False
html_math_renderer = "mathml"


def mathml(node: nodes.Element, tex: str, as_block: bool) -> str:
    tex = re.sub(r"frac(\d)(\d)", r"frac{\1}{\2}", tex)  # to TeX they are two numbers, to docutils one
    try:
        # A bar has the spaces of a binary operator by default, but here it always stands beside an absolute value.
        return re.sub(r"<mo[^>]*>\|</mo>", '<mo stretchy="false" lspace="0" rspace="0">|</mo>', tex2mathml(tex, as_block))
    except MathError as error:
        logging.getLogger(__name__).warning("no MathML for %s: %s", tex, error, location=node)
        return ""


def write_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node, node.astext(), as_block=False))
    raise nodes.SkipNode


def write_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    tex = rf"\begin{{aligned}}{node.astext()}\end{{aligned}}"
    self.body.append(f'<div class="math">{mathml(node, tex, as_block=True)}</div>')
    raise nodes.SkipNode


def draw_figures(app: Sphinx) -> None:
    figures.draw_all(GENERATED / "figures")


def write_lists(app: Sphinx) -> None:
    catalogue.write(GENERATED)
    measurements.write(GENERATED)
    # Sphinx looks for what to generate in pages, not in what they include.
    generate_autosummary_docs([str(GENERATED / "reference.md")], output_dir=GENERATED / "api", app=app)


def skip_fields(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    # They are among the parameters of their class.
    return isinstance(obj, Field) or None


def setup(app: Sphinx) -> None:
    # MathML is read by every browser as it is: the pages load no script from anywhere, and a formula it can't express fails.
    app.add_html_math_renderer("mathml", (write_math, None), (write_math_block, None))
    app.connect("builder-inited", draw_figures, priority=100)
    app.connect("builder-inited", write_lists, priority=100)
    app.connect("autodoc-skip-member", skip_fields)
