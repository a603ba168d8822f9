"""Configuration of the documentation: ``make docs``."""

import os
import sys
from pathlib import Path

import lit_models

sys.path.insert(0, str(Path(__file__).parent.parent))
# Notebooks run in processes of their own, from the checkout.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("WANDB_MODE", "disabled")

project = "lit-models"
author = "the lit-models contributors"
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
html_extra_path = ["results.html"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# Links to files of the checkout (YAML, scripts) are for readers of the checkout.
suppress_warnings = ["myst.xref_missing"]

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style")]
