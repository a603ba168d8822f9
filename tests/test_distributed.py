"""Two CPU processes give the metrics, weights and predictions of one, at any sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked import TWO, command

from lit_models.__main__ import main

ROOT = Path(__file__).parent
CONFIG = str(ROOT / "tiny.yaml")


def launched(tmp_path: Path, *args: str) -> str:
    """What a fresh interpreter prints, which starts the further processes itself."""
    path = os.pathsep.join([str(ROOT.parent), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "lit_models", *args, "--runs_dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def outcome(folder: Path) -> tuple[dict, dict]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return json.loads((folder / "results.json").read_text()), checkpoint["state_dict"]


@pytest.mark.parametrize("drop_last", ["true", "false"])
def test_two_processes_equal_one(tmp_path, drop_last):
    same = ["fit", "--config", CONFIG, "--trainer.precision", "64-true"]
    same += ["--data.drop_last", drop_last, "--trainer.max_epochs", "3"]
    command(tmp_path, *same, "--run_id", "one")
    if drop_last == "true":
        printed = launched(tmp_path, *same, *TWO, "--run_id", "two")
    else:
        printed = command(tmp_path, *same, *TWO, "--run_id", "two", ranks=2)
    assert printed.count("test/mse") == 3  # one table: a row and two notes
    results, weights = zip(
        *(outcome(tmp_path / "tiny" / name) for name in ("one", "two")), strict=True
    )
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-12)
    for name, value in results[0]["metrics"].items():
        assert results[1]["metrics"][name] == pytest.approx(value, rel=1e-6)
    logs = [pd.read_csv(tmp_path / "tiny" / name / "metrics.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-6)


DDPM = ["--config", "ddpm", "--model.num_steps", "5", "--data.num_generated", "41"]
DDPM += ["--data.num_samples", "230", "--data.num_test", "57", "--data.batch_size", "33"]
DDPM += ["--trainer.enable_progress_bar", "false"]


def test_two_processes_train_and_sample_as_one(tmp_path):
    """Every row has its noise, whatever the rank it is on."""
    same = [*DDPM, "--trainer.precision", "64-true", "--model.time_sampling", "importance"]
    runs = []
    for name, ranks, two in (("one", 1, ()), ("two", 2, TWO)):
        options = [*same, "--trainer.max_epochs", "3", "--config", "cpu", *two]
        command(tmp_path, "fit", *options, "--run_id", name, ranks=ranks)
        path = tmp_path / "ddpm" / name
        checkpoint = str(path / "checkpoints" / "last.ckpt")
        command(tmp_path, "predict", *options, "--ckpt_path", checkpoint, ranks=ranks)
        runs.append((*outcome(path), np.load(path / "samples.npy")))
    for name, value in runs[0][1].items():
        torch.testing.assert_close(value, runs[1][1][name], rtol=0, atol=1e-12)
    for name, value in runs[0][0]["metrics"].items():
        assert runs[1][0]["metrics"][name] == pytest.approx(value, rel=1e-6)
    assert runs[0][2].shape == (41, 1)
    np.testing.assert_allclose(runs[0][2], runs[1][2], rtol=1e-6, atol=1e-6)


# Options that make an experiment small, and its training free of noise that differs by rank.
_EXPERIMENTS = {
    "bayesian_mlp": (
        *("--data.num_samples=53", "--data.batch_size=10", "--data.num_test=106"),
        *("--model.initial_std=1e-10", "--trainer.check_val_every_n_epoch=1"),
    ),
}


@pytest.mark.parametrize("name", list(_EXPERIMENTS))
def test_two_processes_equal_one_on_an_experiment(tmp_path, name):
    same = ["fit", "--config", name, *_EXPERIMENTS[name], "--trainer.precision", "64-true"]
    same += ["--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false"]
    command(tmp_path, *same, "--config", "cpu", "--run_id", "one")
    command(tmp_path, *same, *TWO, "--run_id", "two", ranks=2)
    results, weights = zip(*(outcome(tmp_path / name / run) for run in ("one", "two")), strict=True)
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-7)
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-5), key


def test_predictions_are_whole_and_ordered(tmp_path):
    command(tmp_path, "fit", "--config", CONFIG, "--run_id", "run", "--trainer.max_epochs", "1")
    predict = ["predict", "--config", CONFIG, "--ckpt_path", "best"]
    predictions = tmp_path / "tiny" / "run" / "predictions.csv"
    tables = []
    for ranks, options in enumerate(([], TWO), start=1):
        command(tmp_path, *predict, *options, ranks=ranks)
        tables.append(pd.read_csv(predictions))
        predictions.unlink()
    assert len(tables[0]) == 53
    # float32: a product's rounding depends on how many rows share it
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-6, atol=1e-6)


# Sizes that the two ranks cannot share evenly: 5 graphs in batches of 3; 15 scored nodes.
GRAPHS = {
    "graphs": [
        *("--data.num_graphs=5", "--data.num_nodes=31", "--data.batch_size=3"),
        *("--data.num_val_graphs=3", "--data.num_test_graphs=7"),
    ],
    "one graph": ["--data.num_graphs=1", "--data.num_nodes=101", "--data.label_fraction=0.15"],
}


@pytest.mark.parametrize("name", GRAPHS)
def test_two_processes_share_graphs(tmp_path, name):
    same = ["--config", "gcn", "--config", "cpu", *GRAPHS[name], "--runs_dir", str(tmp_path)]
    same += ["--trainer.precision", "64-true", "--trainer.enable_progress_bar", "false"]
    same += ["--trainer.callbacks=[]"]  # no figures
    assert main(["fit", *same, "--trainer.max_epochs", "3", "--run_id", "one"]) == 0
    command(tmp_path, "fit", *same, "--trainer.max_epochs", "3", *TWO, "--run_id", "two", ranks=2)
    folders = [tmp_path / "gcn" / run for run in ("one", "two")]
    results, weights = zip(*map(outcome, folders), strict=True)
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-10)
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-6)
    best = str(folders[0] / "checkpoints" / "best.ckpt")
    assert main(["predict", *same, "--ckpt_path", best]) == 0
    one = pd.read_csv(folders[0] / "predictions.csv")
    command(tmp_path, "predict", *same, *TWO, "--ckpt_path", best, ranks=2)
    pd.testing.assert_frame_equal(one, pd.read_csv(folders[0] / "predictions.csv"), rtol=1e-6)
