"""Sphinx: `sphinx-build -W --keep-going docs site`, with the packages of the extra `docs`."""

from importlib.metadata import version as installed_version
from inspect import isclass, isfunction
from pathlib import Path
from re import fullmatch
from shutil import copytree, rmtree
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

here = Path(__file__).parent
rmtree(here / "tutorials", ignore_errors=True)
copytree(here.parent / "tutorials", here / "tutorials")  # Sphinx reads only what lies beside it

project = "captum_meta"
author = "The captum_meta developers"
project_copyright = "The captum_meta developers"
version = release = installed_version("captum-meta")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "myst_nb", "sphinx_design"]
exclude_patterns = ["results", "_build"]

html_theme = "furo"
html_title = "captum_meta"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tutorials are committed with their outputs; tests/test_tutorials.py runs them

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # an override says what is different, or is not listed again
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
napoleon_numpy_docstring = False


_GROUPED = {"captum_meta.attr", "captum_meta.metrics"}
"""Modules whose page in `api/` has tables of its own."""


def inline_formula(writer: Any, node: nodes.Element) -> None:
    """A formula within a line, as MathML: browsers draw it themselves, offline too."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(writer: Any, node: nodes.Element) -> None:
    """A formula of its own, with its number where it has one."""
    number = f"({get_node_equation_number(writer, node)}) " if node["number"] else ""
    writer.body.append(f'<div class="math">{number}{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def table_of_names(_app: Sphinx, what: str, name: str, documented: Any, _options: Any, lines: list[str]) -> None:
    """Under a module's own words, a line for each of its public names."""
    if what != "module" or name in _GROUPED:
        return
    names = [each for each in getattr(documented, "__all__", ()) if _is_ours(getattr(documented, each))]
    if names:
        lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {each}" for each in names), ""]


def plain_types(_app: Sphinx, _what: str, _name: str, _documented: Any, _options: Any, lines: list[str]) -> None:
    """Shapes in the types of attributes, such as ``"*batch M"``, are no emphasis."""
    lines[:] = [line.replace("*", r"\*") if line.lstrip().startswith(":vartype") else line for line in lines]


def public_bases(_app: Sphinx, _name: str, _documented: Any, _options: Any, bases: list[Any]) -> None:
    """Bases with a name of their own in the reference; the private ones are ours alone."""
    public = [base for base in bases if not _is_private(base)]
    bases[:] = public or [object]


def without_object(_app: Sphinx, _domain: str, _kind: str, content: nodes.Element) -> None:
    """Drop the line which says no more than that a class is an object."""
    if content.children and content.children[0].astext() == "Bases: object":
        del content[0]


def unbroken_figures(_app: Sphinx, page: nodes.document) -> None:
    """Cells of tables that hold nothing but figures, such as ".034 / .077" or "26 to 34", stay on one line."""
    for cell in page.findall(nodes.entry):
        if fullmatch(r"[-\d.,;/%> e]*(to [-\d.,;/%> e]*)*", cell.astext()):
            for text in list(cell.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(text.astext().replace(" ", "\N{NO-BREAK SPACE}")))


def _is_ours(documented: Any) -> bool:
    """A class or a function of this package; a type alias is neither."""
    return (isclass(documented) or isfunction(documented)) and documented.__module__.startswith("captum_meta")


def _is_private(base: Any) -> bool:
    module = getattr(base, "__module__", "")
    return module.startswith("captum_meta") and any(part.startswith("_") for part in module.split("."))


def setup(app: Sphinx) -> None:
    """Formulas as MathML, tables of names, no private bases."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.connect("autodoc-process-docstring", table_of_names)
    app.connect("autodoc-process-docstring", plain_types)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("object-description-transform", without_object)
    app.connect("doctree-read", unbroken_figures)
