"""Figures of a user's series: dates, names, different windows, whole steps, rivals."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from callbacks import ForecastFigure
from datamodules import CSVSeriesDataModule
from lit_models import LitRecurrentForecaster

SIZES = {"window": 6, "horizon": 4, "val_rows": 20, "test_rows": 20, "season": 2}


@pytest.fixture
def frame():
    steps = np.random.default_rng(0).normal(size=(90, 2)).cumsum(0)
    dates = pd.date_range("2024-01-01", periods=90, freq="D").astype(str)
    return pd.DataFrame({"date": dates, "a": steps[:, 0], "b": steps[:, 1]})


def draw(data):
    model = LitRecurrentForecaster(
        data.in_features, 4, 6, hidden_size=4, num_series=data.num_series,
        num_targets=data.num_targets, attention=True,
    ).eval()  # fmt: skip
    model.take_scale(data)
    model.coverage_by_step = {0.8: torch.linspace(0.7, 0.9, 4)}
    with torch.no_grad():
        return ForecastFigure().draw(SimpleNamespace(datamodule=data), model)


@pytest.mark.parametrize("kind", ["one", "several", "joint", "long"])
def test_panels_show_different_windows_and_say_of_what(frame, tmp_path, kind):
    path, target, options = tmp_path / "sales.csv", ["a", "b"], {"joint": kind == "joint"}
    if kind == "one":
        target, options = "a", {}
    if kind == "long":
        frame = frame.melt("date", ["a", "b"], "shop", "y")
        target, options = "y", {"series": "shop"}
    frame.to_csv(path, index=False)
    figures = draw(CSVSeriesDataModule(str(path), target, **options, **SIZES))
    assert set(figures) == {"forecast", "error_per_step", "coverage_per_step", "attention"}
    panels = figures["forecast"].axes
    titles = [axes.get_title() for axes in panels]
    assert sorted(set(titles)) == ([""] if kind == "one" else ["a", "b"])
    windows = {tuple(axes.lines[0].get_ydata()) for axes in panels}
    assert len(windows) == len(panels) == (2 if kind in ("several", "long") else 4)
    assert isinstance(panels[0].lines[0].get_xdata(orig=True)[0], np.datetime64)
    for figure in figures.values():
        title = figure.get_suptitle() or figure.axes[0].get_title()
        assert title.endswith(" test windows")
    error = figures["error_per_step"].axes[0]
    labels = error.get_legend_handles_labels()[1]
    assert {"forecast", "last value", "ridge regression"} <= set(labels)
    for name in ("error_per_step", "coverage_per_step", "attention"):
        ticks = figures[name].axes[0].get_xticks()
        assert (ticks == ticks.round()).all()
