"""A user's series: windows, splits in time, scales, baselines, dates, and wrong files."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import CSVSeriesDataModule, InputError


@pytest.fixture
def series(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024-01-31", periods=97, freq="D").astype(str),
            "load": rng.normal(50, 7, 97).round(3),
            "price": 100 + np.arange(97.0),
        }
    )
    path = tmp_path / "series.csv"
    frame.to_csv(path, index=False)
    return str(path), frame


def test_windows_follow_the_file(series):
    path, frame = series
    data = CSVSeriesDataModule(
        path, "price", ["load"], window=7, horizon=3, val_rows=13, test_rows=17
    )
    assert (data.in_features, data.num_train) == (2, 67 - 7 - 3 + 1)
    train, val, test = (data.windows(split) for split in ("train", "val", "test"))
    torch.testing.assert_close(train.x[5, :, 0], 100 + torch.arange(5.0, 12).double())
    torch.testing.assert_close(train.y[5], 100 + torch.arange(12.0, 15).double())
    np.testing.assert_allclose(train.x[5, :, 1], frame["load"][5:12], rtol=1e-6)
    # Each split's targets are its own: rows 0-66, 67-79 and 80-96.
    for split, first, last in ((train, 7, 66), (val, 67, 79), (test, 80, 96)):
        assert split.y.min() == 100 + first
        assert split.y.max() == 100 + last


def test_scale_comes_from_the_training_rows(series):
    path, frame = series
    data = CSVSeriesDataModule(path, "load", ["price"], window=5, val_rows=20, test_rows=20)
    mean, std = data.standardization["x_scaler"]
    train = frame[["load", "price"]].iloc[:57]
    np.testing.assert_allclose(mean, train.mean(), rtol=1e-5)
    np.testing.assert_allclose(std, train.std(ddof=0), rtol=1e-5)
    assert data.standardization["y_scaler"][0] == mean[:1]


def test_baselines_by_hand(series):
    path, frame = series
    data = CSVSeriesDataModule(
        path, "load", window=9, horizon=2, val_rows=20, test_rows=20, season=7
    )
    load, origins = frame["load"].to_numpy(), np.arange(77, 96)
    truth = np.stack([load[origins], load[origins + 1]], axis=1)
    last = np.mean((load[origins - 1][:, None] - truth) ** 2)
    season = np.mean((np.stack([load[origins - 7], load[origins - 6]], axis=1) - truth) ** 2)
    assert data.baselines["last value"][0] == pytest.approx(last, rel=1e-5)
    assert data.baselines["same step of the last season"][0] == pytest.approx(season, rel=1e-5)
    best = min(errors[0] for errors in data.baselines.values())
    assert data.baseline["test/mse"].value == best


def test_ridge_forecasts_a_line(series):
    path, _ = series
    data = CSVSeriesDataModule(path, "price", window=4, horizon=3)
    assert data.baselines["ridge regression"][0] < 1e-3
    assert data.baselines["last value"][0] == pytest.approx((1 + 4 + 9) / 3)


def test_predictions_carry_dates(series):
    path, frame = series
    options = {"window": 5, "horizon": 2, "test_rows": 11, "val_rows": 11}
    data = CSVSeriesDataModule(path, "load", predict_windows="test", **options)
    test = data.windows("test")
    table = data.prediction_frame({"prediction": test.y, "target": test.y})
    assert list(table.columns) == ["date", "step", "prediction", "target"]
    assert list(table["step"][:4]) == [1, 2, 1, 2]
    assert str(table["date"].iloc[0].date()) == frame["date"][86]
    np.testing.assert_array_equal(table["prediction"][::2], frame["load"][86:96])


def test_without_a_file_the_steps_behind_the_last_row_are_predicted(series):
    path, frame = series
    data = CSVSeriesDataModule(path, "load", window=5, horizon=3)
    data.setup("predict")
    batch = data.windows("predict")
    np.testing.assert_array_equal(batch.x[0, :, 0], frame["load"][-5:])
    table = data.prediction_frame({"prediction": torch.zeros(1, 3), "target": batch.y})
    assert list(table.columns) == ["date", "step", "prediction"]
    assert list(table["date"].astype(str)) == ["2024-05-07", "2024-05-08", "2024-05-09"]


def test_new_file_to_predict(series, tmp_path):
    path, frame = series
    new = tmp_path / "new.csv"
    frame.head(6).to_csv(new, index=False)
    data = CSVSeriesDataModule(path, "load", window=5, predict_path=str(new))
    data.setup("predict")
    np.testing.assert_array_equal(data.windows("predict").x[0, :, 0], frame["load"][1:6])
    frame.head(4).to_csv(new, index=False)
    with pytest.raises(InputError, match="has 4 rows; a window needs 5"):
        CSVSeriesDataModule(path, "load", window=5, predict_path=str(new)).setup("predict")


ROWS = [f"2024-01-{day:02},{day},{day % 5}" for day in range(1, 29)]
WRONG = {
    "no file": (None, {}, "no file 'nothing.csv'"),
    "no target": (ROWS, {"target": "z"}, "no column 'z'; it has date, a, b"),
    "no covariate": (ROWS, {"covariates": ["c"]}, "no column 'c'"),
    "target twice": (ROWS, {"covariates": ["a"]}, "observed anyway"),
    "long window": (ROWS, {"window": 99}, "the train part"),
    "long horizon": (ROWS, {"horizon": 9}, "horizon 9 need 9"),
    "split too large": (ROWS, {"num_train_rows": 27}, "28 rows; 27 + 6 + 6 were asked for"),
    "missing value": ([*ROWS[:9], "2024-01-10,,1", *ROWS[10:]], {}, "row 11: no value"),
    "no number": ([*ROWS[:9], "2024-01-10,x,1", *ROWS[10:]], {}, "row 11: 'a' is 'x'"),
    "no date": ([*ROWS[:9], "tomorrow,3,1", *ROWS[10:]], {}, "row 11: 'date' is 'tomorrow'"),
    "out of order": ([*ROWS[:9], ROWS[20], *ROWS[10:]], {}, "row 12: 'date' 2024-01-11"),
    "repeated date": ([*ROWS[:9], ROWS[8], *ROWS[10:]], {}, "row 11: 'date' 2024-01-09"),
    "named date": (ROWS, {"date": "day"}, "no column 'day'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files(tmp_path, name):
    rows, arguments, message = WRONG[name]
    path = tmp_path / "series.csv"
    if rows is not None:
        path.write_text("\n".join(["date,a,b", *rows]) + "\n")
    given = {"target": "a", "window": 5, **arguments}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        CSVSeriesDataModule(str(path) if rows else "nothing.csv", **given).setup("fit")
    assert "\n" not in str(caught.value)
