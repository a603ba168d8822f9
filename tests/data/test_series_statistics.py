"""Statistical rivals: statsforecast's own rolling forecasts, bounded work, silence without it."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from datamodules import CSVSeriesDataModule
from datamodules.own import series_statistics

INSTALLED = importlib.util.find_spec("statsforecast") is not None
needs_it = pytest.mark.skipif(not INSTALLED, reason="needs the extra `series`")
SIZES = {"window": 6, "horizon": 3, "val_rows": 12, "test_rows": 12, "season": 4}


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    step = np.arange(60)
    parts = [
        pd.DataFrame({"id": name, "y": 50 + 5 * np.sin(step * np.pi / 2) + rng.normal(size=60)})
        for name in ("a", "b")
    ]
    return pd.concat(parts)


def data_of(frame, tmp_path):
    path = tmp_path / "long.csv"
    frame.to_csv(path, index=False)
    return CSVSeriesDataModule(str(path), "y", series="id", **SIZES)


@needs_it
@pytest.mark.parametrize("name", ["AutoARIMA", "AutoETS", "AutoTheta"])
def test_they_are_the_librarys_rolling_forecasts(frame, tmp_path, name):
    from statsforecast import StatsForecast, models

    rivals = data_of(frame, tmp_path).rivals
    long = frame.rename(columns={"id": "unique_id"})
    long["ds"] = np.tile(np.arange(60), 2)
    method = getattr(models, name)(season_length=4)
    rolled = StatsForecast([method], freq=1).cross_validation(
        df=long, h=3, step_size=1, test_size=12, refit=False
    )
    error = ((rolled["y"] - rolled[name]) ** 2).mean()
    assert rivals["test/mse"][name] == pytest.approx(error, rel=1e-6)


@needs_it
def test_one_that_would_take_too_long_is_left_out_and_said(frame, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(series_statistics, "_MOST_SECONDS", 0.5)
    scores = data_of(frame, tmp_path).rivals["test/mse"]
    assert "AutoARIMA" not in scores
    assert "AutoTheta" in scores
    assert "AutoARIMA is not among the rivals: 2 series and 20 windows" in capsys.readouterr().err


def test_without_the_extra_the_other_rivals_stand(frame, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "statsforecast" else find(name)
    )
    scores = data_of(frame, tmp_path).rivals["test/mse"]
    assert set(scores) == {"last value", "same step of the last season", "ridge regression"}
    assert "Auto" not in capsys.readouterr().err
