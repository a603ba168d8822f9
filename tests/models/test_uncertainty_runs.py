"""The uncertainty models through the command: a user's table, and resume."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import fit

from lit_models.__main__ import main

MODELS = ["LitBayesianMLP", "LitMCDropoutMLP", "LitDeepEnsemble", "LitLaplaceMLP"]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(50, 10, 80), "b": rng.normal(size=80), "kind": rng.choice(["u", "v"], 80)}
    )
    frame["price"] = 1000 + 20 * frame["a"] + rng.normal(0, 30, 80)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return str(path)


def run(model, table, target, task, tmp_path):
    data = ["--data", "CSVTabularDataModule", "--data.path", table, "--data.target", target]
    options = ["--model", model, *data, "--data.task", task, "--config", "cpu"]
    options += ["--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"]
    code = main(["fit", *options, "--runs_dir", str(tmp_path / "runs")])
    assert code == 0
    (folder,) = (tmp_path / "runs" / model).iterdir()
    code = main(["predict", *options, "--runs_dir", str(tmp_path / "runs"), "--ckpt_path", "best"])
    assert code == 0
    return pd.read_csv(folder / "predictions.csv")


@pytest.mark.parametrize("model", MODELS)
def test_regression(model, table, tmp_path):
    predictions = run(model, table, "price", "regression", tmp_path)
    expected = ["row", "prediction", "epistemic_std", "aleatoric_std", "lower_95", "upper_95"]
    assert list(predictions) == [*expected, "target"]
    assert len(predictions) == 16
    assert (predictions["lower_95"] < predictions["prediction"]).all()
    assert (predictions["prediction"] < predictions["upper_95"]).all()
    assert predictions["target"].between(1000, 4000).all()
    # In units of the file: the untrained scale of the targets, not 1.
    assert predictions["aleatoric_std"].between(20, 2000).all()


@pytest.mark.parametrize("model", MODELS)
def test_classification(model, table, tmp_path):
    predictions = run(f"{model}Classifier", table, "kind", "classification", tmp_path)
    expected = ["row", "class", "target", "probability_u", "probability_v"]
    assert list(predictions) == [*expected, "predictive_entropy", "mutual_information"]
    total = predictions["probability_u"] + predictions["probability_v"]
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert (predictions["mutual_information"] <= predictions["predictive_entropy"]).all()


def test_packaged_callbacks_accept_several_inputs(table, tmp_path):
    data = ["--data", "CSVTabularDataModule", "--data.path", table, "--data.target", "price"]
    options = [*data, "--data.task", "regression", "--trainer.max_epochs", "1", "--config", "cpu"]
    options += ["--trainer.check_val_every_n_epoch", "1"]
    options += ["--trainer.callbacks+=callbacks.Conformal"]
    far = pd.read_csv(table).drop(columns="price")
    far["a"] += 300
    far.to_csv(tmp_path / "far.csv", index=False)
    options += ["--data.ood_path", str(tmp_path / "far.csv")]
    results = fit("bayesian_mlp", *options, tmp_path=tmp_path)
    figures = {path.stem for path in (Path(results["run_dir"]) / "figures").glob("*.png")}
    assert "calibration" in figures
    assert "predictive_band" not in figures
    assert results["metrics"]["test/ood_auroc"] > 0.95
    # The model's own interval and the conformal one have a score each.
    scores = {"test/coverage_90", "test/conformal_coverage_90", "test/conformal_width_90"}
    assert scores <= set(results["metrics"])
    assert "test/extrapolation_ratio" not in results["metrics"]


@pytest.mark.parametrize(
    ("model", "rows", "columns", "words"),
    [
        ("LitLaplaceMLP", 3, ["a", "b"], "no column 'kind'"),
        ("LitLaplaceMLP", 0, ["a", "b", "kind"], "has no rows"),
        ("LitMLPRegressor", 3, ["a", "b", "kind"], "states no uncertainty"),
    ],
)
def test_strange_rows_are_refused_before_the_fit(
    model, rows, columns, words, table, tmp_path, capsys
):
    path = tmp_path / "ood.csv"
    pd.read_csv(table)[columns].head(rows).to_csv(path, index=False)
    data = ["--data", "CSVTabularDataModule", "--data.path", table, "--data.target", "price"]
    options = [*data, "--data.task", "regression", "--data.ood_path", str(path)]
    code = main(["fit", "--model", model, *options, "--runs_dir", str(tmp_path / "runs")])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_class_is_no_target_of_a_regression(table, tmp_path, capsys):
    data = ["--data", "CSVTabularDataModule", "--data.path", table, "--data.target", "kind"]
    options = ["fit", "--model", "LitDeepEnsemble", *data, "--runs_dir", str(tmp_path / "runs")]
    assert main(options) == 2
    assert "use a classifier" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["bayesian_mlp", "mc_dropout"])
def test_resume_repeats_noise_and_warm_up(name, tmp_path):
    """53 rows in batches of 8: step 9 is the middle of epoch 1, and of the KL's warm-up."""
    same = ["fit", "--config", name, "--runs_dir", str(tmp_path), "--data.num_samples=53"]
    same += ["--data.batch_size=8", "--data.num_test=100", "--trainer.check_val_every_n_epoch=1"]
    same += ["--trainer.max_epochs=4", "--trainer.enable_progress_bar=false", "--config", "cpu"]
    same += ["--model.lr_scheduler.total_steps=24", "--checkpoint.every_n_train_steps=3"]
    if name == "bayesian_mlp":  # the part of the run that a learned noise waits is not the same
        same += ["--model.kl_warmup_steps=15", "--model.noise_std=0.2"]
    assert main([*same, "--run_id", "whole"]) == 0
    assert main([*same, "--run_id", "part", "--trainer.max_steps=9"]) == 0
    resume = ["--ckpt_path", str(tmp_path / name / "part" / "checkpoints" / "last.ckpt")]
    assert main([*same, *resume, "--trainer.max_steps=-1"]) == 0
    whole, part = (
        torch.load(tmp_path / name / run / "checkpoints" / "last.ckpt", weights_only=True)
        for run in ("whole", "part")
    )
    assert whole["global_step"] == part["global_step"] == 24
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, part["state_dict"][key]), key
