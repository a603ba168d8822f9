"""The examples of the docstrings run, and those who use the library find some."""

import doctest
import importlib
from pathlib import Path

import pytest
from lightning import LightningModule
from torch import nn
from torchmetrics import Metric

import lit_models

ROOT = Path(__file__).parent.parent
PACKAGES = ("lit_models", "datamodules", "callbacks")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    """As `python -m pytest --doctest-modules lit_models datamodules` does."""
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples_of_plain_modules_data_and_predictions():
    """Every module that is public beside the models shows its shapes."""
    public = (getattr(lit_models, name) for name in lit_models.__all__)
    plain = [
        kind
        for kind in public
        if isinstance(kind, type)
        and issubclass(kind, nn.Module)
        and not issubclass(kind, LightningModule | Metric)
    ]
    assert len(plain) > 20
    assert not [kind.__name__ for kind in plain if ">>> " not in (kind.__doc__ or "")]
    wanted = {"lit_models.layers.ddpm", "datamodules.own.arrays", "lit_models.command.library"}
    assert wanted <= set(MODULES)
