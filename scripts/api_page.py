"""Writes ``docs/api.rst``, which lists every public name once: ``python -m scripts.api_page``."""

import inspect
from pathlib import Path

import callbacks
import datamodules
import lit_models

_PAGE = Path(__file__).parent.parent / "docs" / "api.rst"


def page() -> str:
    """Text of the page."""
    lines = ["API reference", "=" * 13, ""]
    kinds = {
        "Models": [n for n in _classes(lit_models) if n.startswith("Lit")],
        "Plain modules, metrics and schedules": [
            n for n in _classes(lit_models) if not n.startswith("Lit")
        ],
        "Functions": [n for n in _names(lit_models) if inspect.isroutine(getattr(lit_models, n))],
    }
    for title, names in kinds.items():
        lines += _section(title, "lit_models", names)
    lines += _section("Datamodules", "datamodules", _classes(datamodules))
    lines += _section("Callbacks", "callbacks", _classes(callbacks))
    return "\n".join(lines)


def _names(package: object) -> list[str]:
    return list(vars(package)["__all__"])


def _classes(package: object) -> list[str]:
    return [name for name in _names(package) if inspect.isclass(getattr(package, name))]


def _section(title: str, package: str, names: list[str]) -> list[str]:
    lines = [title, "-" * len(title), "", f".. currentmodule:: {package}", ""]
    lines += [".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
    return [*lines, *(f"   {name}" for name in names), ""]


if __name__ == "__main__":
    _PAGE.write_text(page(), encoding="utf-8")
