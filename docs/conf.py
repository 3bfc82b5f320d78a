"""Sphinx settings. The build fetches nothing and treats each warning as an error: ``nox -s docs``."""

from sphinx.application import Sphinx

import asynctrace

project = "asynctrace"
author = "asynctrace contributors"
copyright = "asynctrace contributors"
version = release = asynctrace.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"asynctrace {release}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"


def keep_drawings(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Shows a drawing in a module's docstring, such as the tree of errors, as it is drawn."""
    if what == "module" and any("├" in line for line in lines):
        lines[1:] = ["", "::", "", *(f"    {line}" for line in lines[1:])]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", keep_drawings)
