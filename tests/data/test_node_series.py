"""A user's series on a graph: windows, scales, baselines, forecasts by node and date."""

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import InputError, NodeSeriesDataModule
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
    values = pd.read_csv(files["path"])[NAMES].to_numpy(dtype=np.float32)
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
    "missing value": (
        {"series": lambda t: t.assign(east=[None, *t["east"][1:]])},
        "row 2: no value in column 'east'",
    ),
    "text": ({"series": lambda t: t.assign(east="x")}, "row 2: 'east' is 'x', not a finite"),
    "dates out of order": ({"series": lambda t: t.iloc[::-1]}, "does not follow"),
    "too short": ({"series": lambda t: t.iloc[:20]}, "part of .* has .* rows; window 12"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(tmp_path, name):
    changes, message = MISTAKES[name]
    with pytest.raises(InputError, match=message):
        NodeSeriesDataModule(**write(tmp_path, **changes)).setup("fit")


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
    values = pd.read_csv(files["path"])
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


def test_features_reach_the_model_in_float32(tmp_path):
    batch = NodeSeriesDataModule(**write(tmp_path)).split("train")
    assert batch.x.dtype == batch.y.dtype == torch.float32
