"""Sphinx: `sphinx-build -W --keep-going docs site`, with the packages of the extra `docs`."""

from importlib.metadata import version as installed_version
from pathlib import Path
from shutil import copytree, rmtree

here = Path(__file__).parent
rmtree(here / "tutorials", ignore_errors=True)
copytree(here.parent / "tutorials", here / "tutorials")  # Sphinx reads only what lies beside it

project = "captum_meta"
author = "The captum_meta developers"
project_copyright = "The captum_meta developers"
version = release = installed_version("captum-meta")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
exclude_patterns = ["results", "_build"]

html_theme = "furo"
html_title = "captum_meta"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tutorials are committed with their outputs; tests/test_tutorials.py runs them

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # an override says what is different, or is not listed again
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
napoleon_numpy_docstring = False
