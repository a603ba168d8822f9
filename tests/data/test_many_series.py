"""Many series of a file: no value altered, none glued, gaps, known columns, rivals, memory."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from datamodules import CSVSeriesDataModule, InputError
from datamodules.own.series_rivals import PENALTIES, Scaler, blocks, fit_ridge

SMALL = {"window": 4, "horizon": 2, "val_rows": 8, "test_rows": 8}


def long_frame(lengths, start="2024-01-01", freq="D"):
    rng = np.random.default_rng(0)
    parts = []
    for index, (name, length) in enumerate(lengths.items()):
        values = 10.0 ** (2 * index) * (1 + rng.random(length))
        dates = pd.date_range(start, periods=length, freq=freq).astype(str)
        parts.append(pd.DataFrame({"store": name, "date": dates, "y": values}))
    return pd.concat(parts)


def write(tmp_path, frame, name="long.csv"):
    path = tmp_path / name
    frame.to_csv(path, index=False)
    return str(path)


FRAME = long_frame({"007": 40, "b": 31, "c": 55})


@pytest.mark.parametrize("order", ["by series", "by date"])
def test_no_window_crosses_series_and_each_is_split_from_its_end(tmp_path, order):
    frame = FRAME if order == "by series" else FRAME.sort_values("date", kind="stable")
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", series="store", **SMALL)
    assert data.series_names == ["007", "b", "c"]
    for split, behind in (("train", 16), ("val", 8), ("test", 0)):
        batch = data.windows(split)
        for number, name in enumerate(data.series_names):
            values = FRAME.loc[FRAME["store"] == name, "y"].to_numpy()
            rows = batch.series == number
            whole = torch.cat([batch.x[rows, :, 0], batch.y[rows]], dim=1).numpy()
            count = len(values) - behind
            first = 4 if split == "train" else count - 8
            expected = [values[o - 4 : o + 2] for o in range(first, count - 1)]
            np.testing.assert_array_equal(whole, expected)


def test_each_series_has_the_scale_of_its_training_rows(tmp_path):
    data = CSVSeriesDataModule(write(tmp_path, FRAME), "y", series=["store"], **SMALL)
    batch = data.windows("test")
    for number, name in enumerate(data.series_names):
        train = FRAME.loc[FRAME["store"] == name, "y"].to_numpy()[:-16]
        row = int((batch.series == number).nonzero()[0])
        assert batch.center[row, 0].item() == pytest.approx(train.mean(), rel=1e-12)
        assert batch.scale[row, 0].item() == pytest.approx(train.std(), rel=1e-12)
        naive = np.abs(np.diff(train)).mean()
        assert batch.naive_error[row].item() == pytest.approx(naive, rel=1e-12)


def test_wide_columns_are_series(tmp_path):
    wide = FRAME.pivot(index="date", columns="store", values="y").reset_index().iloc[:31]
    path = write(tmp_path, wide)
    data = CSVSeriesDataModule(path, ["007", "b", "c"], **SMALL)
    long = CSVSeriesDataModule(
        write(tmp_path, FRAME.groupby("store").head(31), "l.csv"), "y", series="store", **SMALL
    )
    assert data.series_names == long.series_names
    torch.testing.assert_close(data.windows("train").x, long.windows("train").x, rtol=0, atol=0)


def test_what_a_run_knows_serves_new_series_and_needs_no_training_file(tmp_path):
    data = CSVSeriesDataModule(write(tmp_path, FRAME), "y", series="store", **SMALL)
    knowledge = data.knowledge()
    new = write(tmp_path, long_frame({"b": 9, "zz": 7}), "new.csv")
    other = CSVSeriesDataModule(
        str(tmp_path / "gone.csv"), "y", series="store", predict_path=new, **SMALL
    )
    other.adopt(knowledge)
    other.setup("predict")
    batch = other.windows("predict")
    assert batch.series.tolist() == [1, -1]
    torch.testing.assert_close(batch.center[0], knowledge["center"][1])
    own = pd.read_csv(new).query("store == 'zz'")["y"]
    assert batch.center[1, 0].item() == pytest.approx(own.mean(), rel=1e-12)
    assert (other.in_features, other.num_series) == (1, 3)
    same = CSVSeriesDataModule(data.path, "y", series="store", predict_path=new, **SMALL)
    torch.testing.assert_close(same.windows("predict").center, batch.center)
    torch.testing.assert_close(same.windows("predict").naive_error, batch.naive_error)


def test_series_are_never_glued(tmp_path):
    path = write(tmp_path, FRAME)
    with pytest.raises(InputError, match=r"use --data\.series store"):
        CSVSeriesDataModule(path, "y", **SMALL).setup("fit")
    numbered = FRAME.assign(store=FRAME["store"].map({"007": 1, "b": 2, "c": 3}))
    path = write(tmp_path, numbered[["date", "store", "y"]])
    with pytest.raises(InputError, match=r"or use --data\.series store"):
        CSVSeriesDataModule(path, "y", **SMALL).setup("fit")
    path = write(tmp_path, FRAME[["store", "y"]])
    with pytest.raises(InputError, match=r"use --data\.series store"):
        CSVSeriesDataModule(path, "y", **SMALL).setup("fit")


def test_gaps_are_named_filled_or_masked(tmp_path, capsys):
    frame = long_frame({"a": 60}, freq="h")[["date", "y"]].reset_index(drop=True)
    frame.loc[30, "y"] = np.nan
    named = frame.assign(y=frame["y"].astype(object).where(frame["y"].notna(), "NA"))
    with pytest.raises(InputError, match=r"row 32: 'y' is 'NA', no number \(1 such in all\); use"):
        CSVSeriesDataModule(write(tmp_path, named), "y", **SMALL).setup("fit")
    path = write(tmp_path, frame.drop(index=[20, 21, 22]))
    with pytest.raises(InputError, match=r"step is one hour \(1 such places, 3 rows missing\)"):
        CSVSeriesDataModule(path, "y", **SMALL).setup("fit")
    values = frame["y"].to_numpy().copy()
    values[20:23], values[30] = values[19], values[29]
    for gaps, channels in (("fill", 1), ("mask", 2)):
        data = CSVSeriesDataModule(path, "y", gaps=gaps, **SMALL)
        batch = data.windows("train")
        assert data.in_features == channels
        real = np.isin(np.arange(60), [20, 21, 22, 30], invert=True)
        expected = np.stack([real[o : o + 2] for o in range(4, 43)])
        some = expected.any(1)
        expected = expected[some]
        np.testing.assert_array_equal(batch.y[:, 0], values[4:43][some])
        np.testing.assert_array_equal(batch.mask, expected)
    np.testing.assert_array_equal(batch.x[10, :, 1], real[10:14])
    assert "filled with the last value before" in capsys.readouterr().err


def test_known_columns_reach_beyond_the_end(tmp_path):
    frame = long_frame({"a": 40, "b": 40}).reset_index(drop=True)
    frame["price"] = np.arange(80.0)
    frame["day"] = ["x", "y"] * 40
    frame.loc[[38, 39, 78, 79], "y"] = np.nan
    options = {"series": "store", "known": ["price", "day"], **SMALL}
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", **options)
    assert (data.in_features, data.num_known) == (4, 3)
    batch = data.windows("train")
    np.testing.assert_array_equal(batch.known[0, :, 0], [4, 5])
    np.testing.assert_array_equal(batch.known[0, :, 1], [1, 0])
    last = data.windows("predict")
    np.testing.assert_array_equal(last.known[..., 0], [[38, 39], [78, 79]])
    short = write(tmp_path, frame.drop(index=[39, 79]), "short.csv")
    with pytest.raises(InputError, match="has 1 rows behind the last target"):
        CSVSeriesDataModule(short, "y", **options).setup("predict")


def test_ridge_is_scikit_learns(tmp_path):
    data = CSVSeriesDataModule(write(tmp_path, FRAME), "y", series="store", **SMALL)
    scaler = Scaler(*(part[:1] for part in data.scales[:2]))
    found = fit_ridge(data.rows, data.split("train"), data.split("val"), scaler)
    x, y, errors = {}, {}, {}
    for split in ("train", "val"):
        (batch,) = blocks(data.rows, data.split(split))
        inputs, last = scaler.inputs(batch)
        x[split], y[split] = inputs.numpy(), (scaler.targets(batch)[..., 0] - last).numpy()
    fits = {alpha: Ridge(alpha=alpha).fit(x["train"], y["train"]) for alpha in PENALTIES}
    for alpha, fit in fits.items():
        errors[alpha] = ((fit.predict(x["val"]) - y["val"]) ** 2).mean()
    best = fits[min(errors, key=errors.get)]
    np.testing.assert_allclose(found.weight, best.coef_, atol=1e-10)
    np.testing.assert_allclose(found.bias, best.intercept_, atol=1e-10)
    squared = ((best.predict(x["train"]) - y["train"]) ** 2).mean(0)
    np.testing.assert_allclose(found.std**2, squared, rtol=1e-9)


def test_a_large_offset_costs_no_digits(tmp_path):
    rng = np.random.default_rng(1)
    steps = np.cumsum(3 + rng.normal(0, 0.1, 300))
    errors = []
    for offset in (0.0, 5e8):
        path = write(tmp_path, pd.DataFrame({"y": offset + steps}))
        data = CSVSeriesDataModule(path, "y", window=6, horizon=2)
        errors.append(data.rivals["test/mse"]["ridge regression"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-5)


@pytest.mark.parametrize(
    ("cells", "first", "step"),
    [
        ([str(1900 + k) for k in range(40)], "1940-01-01", "one year"),
        ([f"{2000 + k // 12}{k % 12 + 1:02}" for k in range(40)], "2003-05-01", "one month"),
        ([f"{d:%Y%m%d}" for d in pd.date_range("2024-01-20", periods=40)], "2024-02-29", "one day"),
        ([f"{d:%d/%m/%Y}" for d in pd.date_range("2024-01-20", periods=40)], "2024-02-29", "one d"),
        ([f"{d:%Y-%m-%d}" for d in pd.date_range("2024-01-31", periods=40, freq="ME")],
         "2027-05-31", "one month"),
    ],
)  # fmt: skip
def test_dates_of_every_kind_are_continued(tmp_path, cells, first, step):
    path = write(tmp_path, pd.DataFrame({"when": cells, "y": np.arange(40.0)}))
    data = CSVSeriesDataModule(path, "y", date="when", **SMALL)
    data.setup("predict")
    frame = data.prediction_frame({"prediction": torch.zeros(1, 2)})
    assert str(frame["date"][0].date()) == first
    assert str(data.table.step).startswith(step)


def test_the_end_of_summer_time_is_named(tmp_path):
    local = pd.date_range("2021-10-30", periods=80, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"t": local.tz_localize(None).astype(str), "y": np.arange(80.0)})
    with pytest.raises(InputError, match="end of summer time; write the dates in UTC"):
        CSVSeriesDataModule(write(tmp_path, frame), "y", **SMALL).setup("fit")
    frame["t"] = [stamp.isoformat() for stamp in local]
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", **SMALL)
    data.setup("fit")
    assert (np.diff(data.table.dates) == np.timedelta64(1, "h")).all()


def test_validation_of_a_long_file_takes_evenly_spaced_windows(tmp_path, capsys):
    data = CSVSeriesDataModule(pd.DataFrame({"y": np.arange(90_000.0)}), "y", val_rows=45_000)
    first = np.arange(27_000, 72_000, 3)
    np.testing.assert_array_equal(data.origins("val").row, first)
    assert len(data.origins("test").row) == 18_000
    assert "one in 3 of its 45,000 windows" in capsys.readouterr().err


def test_few_validation_windows_are_said(tmp_path, capsys):
    frame = pd.DataFrame({"y": np.arange(200.0)})
    path = write(tmp_path, frame)
    CSVSeriesDataModule(path, "y", window=4, horizon=12, val_rows=40).split("val")
    assert "29 validation windows are few for intervals of 95 %, which need 54" in (
        capsys.readouterr().err
    )
    CSVSeriesDataModule(path, "y", window=4, horizon=12, val_rows=65).split("val")
    assert "few" not in capsys.readouterr().err


def test_folds_roll_the_origin(tmp_path):
    path = write(tmp_path, pd.DataFrame({"y": np.arange(100.0)}))
    options = {"window": 4, "horizon": 2, "val_rows": 10, "test_rows": 10, "folds": 3}
    for fold, first in enumerate((70, 80, 90)):
        data = CSVSeriesDataModule(path, "y", fold=fold, **options)
        assert data.windows("test").y.min() == first
        assert data.windows("train").y.max() == first - 11
    with pytest.raises(InputError, match="fold 3 is none of 3"):
        CSVSeriesDataModule(path, "y", fold=3, **options)


def test_a_date_may_stand_in_several_columns(tmp_path):
    hours = pd.date_range("2024-02-28", periods=60, freq="h")
    parts = {"Year": hours.year, "month": hours.month, "day": hours.day, "hour": hours.hour}
    frame = pd.DataFrame({**parts, "y": np.arange(60.0)})
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", date=list(parts), **SMALL)
    np.testing.assert_array_equal(data.table.dates, hours)
    data.setup("predict")
    assert str(data.prediction_frame({"prediction": torch.zeros(1, 2)})["date"][1]) == (
        "2024-03-01 13:00:00"
    )
    frame.loc[7, "day"] = 31
    with pytest.raises(InputError, match=r"row 9: 'Year': 2024-2-31-7 is no date"):
        CSVSeriesDataModule(write(tmp_path, frame), "y", date=list(parts), **SMALL).setup("fit")
    with pytest.raises(InputError, match="are one date if they are called year"):
        CSVSeriesDataModule(write(tmp_path, frame), "y", date=["Year", "hour"], **SMALL).table  # noqa: B018


def test_working_days_have_no_gap_at_a_weekend(tmp_path):
    days = pd.bdate_range("2024-01-03", periods=60)
    frame = pd.DataFrame({"day": days.astype(str), "y": np.arange(60.0)})
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", **SMALL)
    assert str(data.table.step) == "one working day"
    assert data.table.step.after(days.to_numpy()[2], 2).astype(str).tolist() == [
        "2024-01-08T00:00:00.000000000",
        "2024-01-09T00:00:00.000000000",
    ]
    holiday = write(tmp_path, frame.drop(index=[20, 21]), "holiday.csv")
    with pytest.raises(InputError, match=r"one working day \(1 such places, 2 rows missing\)"):
        CSVSeriesDataModule(holiday, "y", **SMALL).setup("fit")
    filled = CSVSeriesDataModule(holiday, "y", gaps="fill", **SMALL)
    np.testing.assert_array_equal(filled.table.dates, days)
    saturday = pd.DataFrame({"day": days.union(pd.DatetimeIndex(["2024-02-10"])).astype(str)})
    with pytest.raises(InputError, match="step is one day"):
        CSVSeriesDataModule(write(tmp_path, saturday.assign(y=1.0)), "y", **SMALL).setup("fit")


def test_the_index_of_a_table_may_hold_the_dates():
    days = pd.date_range("2024-01-03", periods=60, freq="D")
    for index in (days, days.to_period("D"), days.rename("when")):
        frame = pd.DataFrame({"y": np.arange(60.0)}, index=index)
        data = CSVSeriesDataModule(frame, "y", **SMALL)
        np.testing.assert_array_equal(data.table.dates, days)
        assert "y" in frame.columns
        assert len(frame.columns) == 1  # the caller's table is as it was


def test_a_series_shorter_than_the_window_is_not_forecast_and_named(tmp_path, capsys):
    data = CSVSeriesDataModule(write(tmp_path, FRAME), "y", series="store", **SMALL)
    new = write(tmp_path, long_frame({"zz": 3, "c": 9, "yy": 4}), "new.csv")
    other = CSVSeriesDataModule("gone.csv", "y", series="store", predict_path=new, **SMALL)
    other.adopt(data.knowledge())
    other.setup("predict")
    batch = other.windows("predict")
    assert batch.series.tolist() == [2, -2]
    own = pd.read_csv(new).query("store == 'yy'")["y"]
    np.testing.assert_array_equal(batch.x[1, :, 0], own)
    assert batch.center[1, 0].item() == pytest.approx(own.mean(), rel=1e-12)
    frame = other.prediction_frame({"prediction": torch.zeros(2, 2)})
    assert frame["store"].tolist() == ["c", "c", "yy", "yy"]
    assert "series 'zz', has 3 rows; a window needs 4: 1 of 3 series" in capsys.readouterr().err


def test_a_file_of_what_is_known_may_continue_some_series_in_any_order(tmp_path):
    frame = long_frame({"a": 40, "b": 45, "c": 40}).assign(price=1.0)
    ahead = [("c", "2024-02-10", 7), ("c", "2024-02-11", 8)]
    ahead += [("b", "2024-02-15", 5), ("b", "2024-02-16", 6)]
    new = pd.DataFrame(ahead, columns=["store", "date", "price"])
    data = CSVSeriesDataModule(
        write(tmp_path, frame), "y", series="store", known="price",
        predict_path=write(tmp_path, new, "ahead.csv"), **SMALL,
    )  # fmt: skip
    data.setup("predict")
    batch = data.windows("predict")
    np.testing.assert_array_equal(batch.known[..., 0], [[7, 8], [5, 6]])
    expected = [frame.loc[frame["store"] == name, "y"].iloc[-4:] for name in "cb"]
    np.testing.assert_array_equal(batch.x[..., 0], expected)
    table = data.prediction_frame({"prediction": torch.zeros(2, 2)})
    assert table["store"].tolist() == ["c", "c", "b", "b"]
    assert table["date"].astype(str).tolist() == new["date"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_rows": -3}, "test_rows is a number of rows from 1, or a share between 0 and 1"),
        ({"val_rows": 1.5}, "val_rows is a number of rows from 1, or a share between 0 and 1"),
        ({"folds": 1}, "folds must be 2 or more"),
        ({"season": -3}, "season must be at least 0, got -3"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"season": 35}, "a season of 35 steps is longer"),
        ({"known": ["y"]}, "'y' is named twice"),
        ({"transform": "boxcox"}, "needs it above 0"),
    ],
)
def test_wrong_options(tmp_path, arguments, message):
    path = write(tmp_path, pd.DataFrame({"y": np.arange(40.0) - 3}))

    def use():
        data = CSVSeriesDataModule(path, "y", **(SMALL | arguments))
        data.setup("test")
        return data.target_power

    with pytest.raises(InputError, match=re.escape(message)):
        use()


NUMBERS = st.floats(-1e15, 1e15).filter(lambda value: value == 0 or abs(value) > 1e-100)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(NUMBERS, min_size=20, max_size=40), st.integers(0, 3))
def test_no_reader_alters_a_value(tmp_path, values, num_digits):
    frame = pd.DataFrame({"id": ["0" * num_digits + "1"] * len(values), "y": values})
    data = CSVSeriesDataModule(write(tmp_path, frame), "y", series="id", window=2)
    np.testing.assert_array_equal(data.table.values[:, 0], values)
    assert data.series_names == ["0" * num_digits + "1"]
