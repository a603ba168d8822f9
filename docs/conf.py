"""Configuration of the documentation: ``make docs``."""

import os
import sys
from pathlib import Path
from typing import Any

import lit_models

sys.path.insert(0, str(Path(__file__).parent.parent))
# Notebooks run in processes of their own, from the checkout; they show what they draw, which a
# backend named from outside would keep them from.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
os.environ.pop("MPLBACKEND", None)
os.environ.setdefault("WANDB_MODE", "disabled")

project = "lit-models"
author = copyright = "the lit-models contributors"
version = release = lit_models.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lit-models {release}"

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# Links to files of the checkout (YAML, scripts) are for readers of the checkout.
suppress_warnings = ["myst.xref_missing"]

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# Warnings name folders of the machine that builds.
nb_output_stderr = "remove"

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style")]


def _publish_trials(app: Any, error: Exception | None) -> None:
    """The results as one page with figures: too large to be committed."""
    from scripts.results.page import site_page

    if error is None and app.builder.name == "html":
        (Path(app.outdir) / "trials.html").write_text(site_page(Path(app.srcdir)), encoding="utf-8")


def _check_tutorials(app: Any, error: Exception | None) -> None:
    """Each notebook shows a figure of its own."""
    from sphinx.errors import ExtensionError

    if error is None and app.builder.name == "html":
        for page in sorted(Path(app.outdir).glob("tutorials/*.html")):
            if 'src="../_images/' not in page.read_text(encoding="utf-8"):
                raise ExtensionError(f"{page.name} shows no figure")


def _mend_markup(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """What axe calls serious: what only a mouse can scroll, headings without a level."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            text = context[part].replace("<pre>", '<pre tabindex="0">')
            for scrolled in ('<div class="table-wrapper', '<div class="output text_html'):
                text = text.replace(scrolled, scrolled.replace("<div", '<div tabindex="0"'))
            context[part] = text.replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app: Any) -> None:
    """Adds what this project builds besides its pages."""
    app.connect("build-finished", _publish_trials)
    app.connect("build-finished", _check_tutorials)
    app.connect("html-page-context", _mend_markup, priority=900)  # after the theme
