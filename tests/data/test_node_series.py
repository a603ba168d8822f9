"""A user's series on a graph: windows, scales, baselines, forecasts by node and date."""

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import InputError, NodeSeriesDataModule
from lit_models import LitSTGNN
from lit_models.__main__ import main

NAMES = ["north", "south", "east", "west", "center"]


def write(folder, series=None, edges=None):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 5)).cumsum(0) + 10 * np.arange(5)
    table = pd.DataFrame(values, columns=NAMES)
    table.insert(0, "week", pd.date_range("2020-01-05", periods=60, freq="W").astype(str))
    links = pd.DataFrame({"from": ["center"] * 4, "to": NAMES[:4]})
    (series or (lambda t: t))(table).to_csv(folder / "series.csv", index=False)
    (edges or (lambda t: t))(links).to_csv(folder / "edges.csv", index=False)
    return {"path": str(folder / "series.csv"), "edges_path": str(folder / "edges.csv")}


def test_windows_follow_the_rows(tmp_path):
    files = write(tmp_path)
    data = NodeSeriesDataModule(**files, window=4, horizon=3, val_rows=10, test_rows=12)
    values = pd.read_csv(files["path"], float_precision="round_trip")[NAMES].to_numpy()
    train, val, test = (data.split(s) for s in ("train", "val", "test"))
    assert (len(train.x), len(val.x), len(test.x)) == (32, 8, 10)
    assert train.x.shape[1:] == (4, 5, 1)
    for split, first in ((train, 4), (val, 38), (test, 48)):
        for row in (0, len(split.x) - 1):
            origin = first + row
            np.testing.assert_array_equal(split.x[row, :, :, 0], values[origin - 4 : origin])
            np.testing.assert_array_equal(split.y[row], values[origin : origin + 3])
    assert set(map(tuple, train.edge_index.T.tolist())) == {
        *((4, k) for k in range(4)),
        *((k, 4) for k in range(4)),
    }


def test_scale_is_each_nodes_training_rows(tmp_path):
    data = NodeSeriesDataModule(**write(tmp_path), window=4, val_rows=10, test_rows=12)
    values = pd.read_csv(data.path)[NAMES].to_numpy()[:38]
    mean, std = data.standardization["y_scaler"]
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(std, values.std(0))


def test_persistence_is_the_last_value(tmp_path):
    data = NodeSeriesDataModule(**write(tmp_path), window=4)
    test = data.split("test")
    error = (test.y[:, 0] - test.x[:, -1, :, 0]).square().mean().item()
    assert data.baselines["last value"][0] == pytest.approx(error, rel=1e-5)


MISTAKES = {
    "edge to no node": (
        {"edges": lambda t: t.assign(to="moon")},
        "'to' is 'moon', no node of .*series.csv's header",
    ),
    "node without a value": (
        {"series": lambda t: t.assign(east=[*[None] * 50, *t["east"][50:]])},
        "'east' has no value in training rows",
    ),
    "text": ({"series": lambda t: t.assign(east="x")}, "row 2: 'east' is 'x', not a finite"),
    "a gap of dates": (
        {"series": lambda t: t.drop(index=range(20, 30))},
        "2020-08-02 .* follows 2020-05-17 .* step is 7 days .* 10 rows missing.* --data.gaps fill",
    ),
    "dates out of order": ({"series": lambda t: t.iloc[::-1]}, "does not follow"),
    "too short": ({"series": lambda t: t.iloc[:20]}, "part of .* has .* rows; window 12"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(tmp_path, name):
    changes, message = MISTAKES[name]
    with pytest.raises(InputError, match=message):
        NodeSeriesDataModule(**write(tmp_path, **changes)).setup("fit")


@pytest.mark.parametrize("gaps", ["fill", "mask"])
def test_a_step_that_is_left_out_is_missing(tmp_path, capsys, gaps):
    files = write(tmp_path, lambda t: t.drop(index=range(20, 30)))
    data = NodeSeriesDataModule(**files, window=4, gaps=gaps, val_rows=10, test_rows=12)
    train, whole = data.split("train"), NodeSeriesDataModule(**write(tmp_path), window=4)
    values = whole._series[0]
    values[20:30] = np.nan
    np.testing.assert_array_equal(data._series[0], values)
    assert data.in_features == train.x.shape[-1] == (2 if gaps == "mask" else 1)
    if gaps == "mask":
        assert torch.equal(train.x[..., 1] == 1, train.x[..., 0].isfinite())
    assert "10 rows missing" in capsys.readouterr().err


def test_forecasts_have_a_row_per_window_and_node(tmp_path):
    files = write(tmp_path)
    options = [f"--data.{key}={value}" for key, value in files.items()]
    options = ["--data", "NodeSeriesDataModule", *options]
    options += ["--data.window", "4", "--data.horizon", "2"]
    options += ["--runs_dir", str(tmp_path / "runs"), "--config", "cpu"]
    options += ["--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"]
    assert main(["fit", "--config", "stgnn", *options, "--run_id", "r"]) == 0
    assert main(["predict", "--config", "stgnn", *options, "--ckpt_path", "best"]) == 0
    folder = tmp_path / "runs" / "stgnn" / "r"
    table = pd.read_csv(folder / "predictions.csv")
    assert len(table) == 11 * 5
    assert table["node"].tolist() == NAMES * 11
    values = pd.read_csv(files["path"], float_precision="round_trip")
    row = table.iloc[7]
    assert row["last_observed_row"] == 48
    assert row["last_observed"] == values["week"][48]
    assert row["target_2"] == pytest.approx(values["east"][50], rel=1e-5)
    more = [*options, "--data.predict_path", files["path"]]
    assert main(["predict", "--config", "stgnn", *more, "--ckpt_path", "best"]) == 0
    table = pd.read_csv(folder / "predictions.csv")
    assert table["node"].tolist() == NAMES
    assert set(table["last_observed"]) == {values["week"][59]}
    assert list(table.columns)[-2:] == ["prediction_1", "prediction_2"]


def test_values_keep_the_digits_of_the_file(tmp_path):
    files = write(tmp_path, lambda t: t.assign(**{name: t[name] + 5e8 for name in NAMES}))
    batch = NodeSeriesDataModule(**files, window=4).split("train")
    values = pd.read_csv(files["path"], float_precision="round_trip")[NAMES].to_numpy()
    assert batch.x.dtype == batch.y.dtype == torch.float64
    np.testing.assert_array_equal(batch.x[0, :, :, 0], values[:4])


@pytest.mark.parametrize("marked", [None, 0.0])
def test_missing_values_have_no_part_in_anything(tmp_path, marked):
    rng = np.random.default_rng(1)
    holes = rng.random((60, 5)) < 0.2
    holes[:3] = False

    def pierced(table):
        values = table[NAMES].to_numpy(copy=True)
        values[holes] = np.nan if marked is None else marked
        return table.assign(**dict(zip(NAMES, values.T, strict=True)))

    data = NodeSeriesDataModule(**write(tmp_path, pierced), window=4, missing_value=marked)
    (tmp_path / "whole").mkdir()
    whole = NodeSeriesDataModule(**write(tmp_path / "whole"), window=4)
    batch, full = data.split("test"), whole.split("test")
    here = torch.from_numpy(holes[48:])
    assert torch.equal(batch.y[:, 0].isnan(), here)
    torch.testing.assert_close(batch.y[:, 0][~here], full.y[:, 0][~here], rtol=0, atol=0)
    mean, std = data.standardization["y_scaler"]
    values = np.where(holes, np.nan, whole._series[0])[:36]
    np.testing.assert_allclose(mean, np.nanmean(values, 0))
    np.testing.assert_allclose(std, np.nanstd(values, 0))
    last = data.baselines["last value"][0]
    assert np.isfinite(last)
    model = LitSTGNN(1, 5, 1, 4)
    model.take_scale(data)
    output = model.step(batch)
    assert output.num_targets == int((~here).sum())
    assert torch.isfinite(output.loss)
    error = ((model(batch) - batch.y) / std)[~batch.y.isnan()]
    assert output.loss.item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_channels_tell_the_time(tmp_path):
    dates = pd.date_range("2024-03-04", periods=60, freq="6h").astype(str)
    files = write(tmp_path, lambda t: t.assign(week=dates))
    data = NodeSeriesDataModule(
        **files, window=4, channels=["time_of_day", "day_of_week", "observed"]
    )
    x = data.split("train").x
    assert data.in_features == x.shape[-1] == 6
    # A Monday at 0, 6, 12 and 18 o'clock.
    expected = torch.tensor([[0.0, 1], [1, 0], [0, -1], [-1, 0]]).double()
    torch.testing.assert_close(x[0, :, 3, 1:3], expected, rtol=0, atol=1e-12)
    assert x[0, 0, 0, 3:5].tolist() == pytest.approx([0, 1])
    assert (x[..., 5] == 1).all()
    LitSTGNN(6, 5, 1, 4).take_scale(data)


def test_a_run_predicts_without_its_training_file(tmp_path):
    files = write(tmp_path)
    known = NodeSeriesDataModule(**files, window=4).knowledge()
    fresh = NodeSeriesDataModule("gone.csv", files["edges_path"], 4, predict_path=files["path"])
    fresh.adopt(known)
    assert fresh.num_nodes == 5
    assert fresh.split("predict").x.shape == (1, 4, 5, 1)


def test_short_series_are_seen_in_small_batches(tmp_path):
    data = NodeSeriesDataModule(**write(tmp_path), window=4, batch_size=None)
    data.setup("fit")
    assert data.batch_size == 4
