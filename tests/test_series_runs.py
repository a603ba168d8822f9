"""Runs on a user's series: resumed, on two processes, exported, predicted; heads, joint targets."""

import json
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from forked import command
from test_distributed import outcome

from datamodules import CSVSeriesDataModule
from lit_models import LitRecurrentForecaster
from lit_models.__main__ import main
from lit_models.command.export_file import write

KINDS = {
    "quantile": ("--data.target", "y", "--data.series", "shop", "--data.known", "price"),
    "mixture": ("--data.target", "y", "--data.series", "shop", "--model.embedding_dim", "2"),
    "joint": ("--data.target", "[y, price]", "--data.series", "shop", "--data.joint", "true"),
}


def head_of(kind):
    return "point" if kind == "joint" else kind


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    parts = []
    for name, length in (("01", 61), ("b", 70), ("c", 55)):
        steps = rng.normal(size=(length, 2)).cumsum(0) + 30
        frame = pd.DataFrame({"shop": name, "day": pd.date_range("2024-01-01", periods=length)})
        parts.append(frame.assign(y=steps[:, 0], price=steps[:, 1]))
    path = tmp_path_factory.mktemp("data") / "shops.csv"
    pd.concat(parts).to_csv(path, index=False)
    return str(path)


def fit(kind: str, path: str, folder: Path, run_id: str, *options: str) -> list[str]:
    return [
        *("fit", "--config", "lstm", "--config", "real_series", "--config", "cpu", *KINDS[kind]),
        *("--data.path", path, "--data.window", "5", "--data.horizon", "3", "--data.batch_size"),
        *("11", "--data.transform", "none", "--model.head", head_of(kind), "--experiment", kind),
        *("--model.hidden_size", "4", "--trainer.precision", "64-true", "--runs_dir", str(folder)),
        *("--trainer.val_check_interval", "2", "--trainer.enable_progress_bar", "false"),
        *(("--run_id", run_id) if run_id else ()),
        *options,
    ]


@pytest.mark.parametrize(
    "kind", ["quantile", *(pytest.param(k, marks=pytest.mark.slow) for k in ("mixture", "joint"))]
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, path, kind):
    runs = {}
    last = str(tmp_path / kind / "part" / "checkpoints" / "last.ckpt")
    for run_id, steps, more in (
        ("whole", "12", ()),
        ("part", "6", ()),
        ("", "12", ("--ckpt_path", last)),
    ):
        line = [*fit(kind, path, tmp_path, run_id, *more), "--trainer.max_steps", steps]
        assert main([*line, "--model.lr_scheduler.total_steps", "12"]) == 0
    for run_id in ("whole", "part"):
        folder = tmp_path / kind / run_id
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        runs[run_id] = state, json.loads((folder / "results.json").read_text())["metrics"]
    for name, value in runs["whole"][0].items():
        assert torch.equal(value, runs["part"][0][name]), name
    assert runs["whole"][1] == runs["part"][1]


def test_folds_follow_each_other_up_to_the_end(tmp_path, path):
    line = fit("joint", path, tmp_path, "back", "--trainer.max_steps", "2", "--data.folds", "2")
    assert main([*line, "--data.val_rows", "8", "--data.test_rows", "8"]) == 0
    summary = json.loads((tmp_path / "joint" / "back-folds.json").read_text())
    targets = ["y", "price"]
    series = [part[targets].to_numpy() for _, part in pd.read_csv(path).groupby("shop")]
    expected = []
    for behind in (8, 0):  # rows behind the test part of a fold
        errors = []
        for values in series:
            end = len(values) - behind
            origins = range(end - 8, end - 2)
            errors += [((values[o : o + 3] - values[o - 1]) ** 2).mean() for o in origins]
        expected.append(np.mean(errors))
    found = summary["rivals"]["test/mse"]["last value"]
    assert found["folds"] == pytest.approx(expected, rel=1e-9)
    assert summary["metrics"]["test/mse"]["mean"] == pytest.approx(
        np.mean(summary["metrics"]["test/mse"]["folds"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(tmp_path, path, kind):
    same = ("--trainer.max_steps", "6", "--model.dropout", "0")
    assert main(fit(kind, path, tmp_path, "one", *same)) == 0
    two = (*same, "--config", "ddp", "--trainer.devices", "2")
    command(tmp_path, *fit(kind, path, tmp_path, "two", *two), ranks=2)
    results, weights = zip(
        *(outcome(tmp_path / kind / run_id) for run_id in ("one", "two")), strict=True
    )
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-6, msg=key)
    assert results[0]["series"].keys() == results[1]["series"].keys()
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-5), key


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_forecaster_answers_as_the_model(tmp_path, path, kind):
    joint = kind == "joint"
    data = CSVSeriesDataModule(
        path, ["y", "price"] if joint else "y", series="shop", joint=joint, window=5, horizon=3,
        known=["price"] if kind == "quantile" else [],
    )  # fmt: skip
    model = LitRecurrentForecaster(
        data.in_features, 3, 5, hidden_size=4, head=head_of(kind), num_series=3, ridge_start=True,
        num_known=data.num_known, num_targets=data.num_targets, residual=True, linear_skip=True,
        embedding_dim=2 if kind == "mixture" else 0,
    ).eval()  # fmt: skip
    model.take_scale(data)
    assert write(model, data, "torch", tmp_path / "model.pt2") < 1e-4


def test_predictions_follow_the_errors_of_the_test(tmp_path, path):
    """A model that is always off by its validation's errors widens; each new date gets a row."""
    data = CSVSeriesDataModule(path, "y", series="shop", window=5, horizon=3)
    model = LitRecurrentForecaster(1, 3, 5, hidden_size=4, num_series=3, residual=True).eval()
    model.take_scale(data)
    points = torch.linspace(0, 0.01, 201)[None, :, None].expand(2, -1, 3)  # too narrow by far
    model.widths.scores.copy_(points)
    model.widths.count.fill_(200)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
    outputs = trainer.predict(model, data)
    columns = {name: torch.cat([part[name] for part in outputs]) for name in outputs[0]}
    static = model.widths.static(torch.arange(3)) * data.scales[1][:, :1, None]
    half = (columns["upper_80"] - columns["lower_80"]) / 2
    assert (half > 1.05 * static[:, 0]).all()
    frame = data.prediction_frame(columns)
    assert list(frame["date"].iloc[[0, 3]].astype(str)) == ["2024-03-02", "2024-03-11"]
    assert list(frame["shop"].unique()) == ["01", "b", "c"]
    assert len(list(data.followed_windows())) == 2  # those with known targets, those to predict


def test_a_file_that_training_has_seen_whole_is_forecast_with_the_widths_of_validation(path):
    data = CSVSeriesDataModule(path, "y", series="shop", window=5, horizon=3)
    frame = pd.read_csv(path).groupby("shop").head(20)
    other = CSVSeriesDataModule(
        path, "y", series="shop", window=5, horizon=3, predict_path=frame.reset_index(drop=True)
    )
    model = LitRecurrentForecaster(1, 3, 5, hidden_size=4, num_series=3).eval()
    model.take_scale(data)
    model.widths.scores.fill_(1.0)
    model.widths.count.fill_(200)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (columns,) = trainer.predict(model, other)
    half = (columns["upper_80"] - columns["lower_80"]) / 2
    torch.testing.assert_close(half, data.scales[1][:, :1].expand(3, 3), rtol=1e-5, atol=0)
