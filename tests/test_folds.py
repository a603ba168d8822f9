"""A cross-validation in one command."""

import json
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest

from lit_models.__main__ import main
from lit_models.command.folds import folds_to_run, summarize, table


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ("--data.folds 3", 3),
        ("--data.folds=3", 3),
        ("--data.folds 3 --data.fold 1", 0),
        ("--data.folds 0", 0),
        ("", 0),
        ("--data.folds 3 --print_config", 0),
        ("--config NO_SUCH --data.folds 3", 0),
    ],
)
def test_a_fit_that_names_no_fold_runs_them_all(options, number):
    assert folds_to_run(["fit", "--config", "table", *options.split()]) == number
    assert folds_to_run(["test", "--config", "table", *options.split()]) == 0


def test_a_configuration_may_name_folds(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {init_args: {folds: 4}}\n")
    assert folds_to_run(["fit", "--config", "table", "--config", str(path)]) == 4
    path.write_text("data: {init_args: {folds: 4, fold: 0}}\n")
    assert folds_to_run(["fit", "--config", "table", "--config", str(path)]) == 0


def test_a_summary_pairs_the_folds_with_the_rival():
    results = [
        {"metrics": {"test/accuracy": a, "test/odd": None}, "rivals": {"test/accuracy": {"r": b}}}
        for a, b in ((0.8, 0.9), (0.7, 0.9), (0.9, 0.9))
    ]
    summary = summarize(results)
    assert set(summary["metrics"]) == {"test/accuracy"}
    text = table(summary, 3, {"test/accuracy"})
    assert "test/accuracy  0.8 ± 0.1" in text
    assert "test/accuracy loses to r by 0.1 ± 0.06 (paired)" in text
    assert "loses" not in table(summary, 3, set())


def test_every_fold_is_a_run_and_the_spread_is_over_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(90, 2)), columns=["a", "b"])
    frame["y"] = frame["a"] + rng.normal(size=90)
    frame.to_csv("t.csv", index=False)
    options = ["--data.path", "t.csv", "--data.target", "y", "--trainer.max_steps=3"]
    code = main(["fit", "--config", "table", *options, "--data.folds=3", "--run_id=cv"])
    assert code == 0
    runs = [
        json.loads((tmp_path / f"runs/table/cv-fold{fold}/results.json").read_text())
        for fold in range(3)
    ]
    scores = [run["metrics"]["test/mse"] for run in runs]
    assert len(set(scores)) == 3
    summary = json.loads((tmp_path / "runs/table/cv-folds.json").read_text())["metrics"]["test/mse"]
    assert summary["folds"] == scores
    assert summary["mean"] == pytest.approx(fmean(scores))
    assert summary["std"] == pytest.approx(stdev(scores))
    assert "3 folds: mean and standard deviation" in capsys.readouterr().out
    assert main(["fit", "--config", "table", *options, "--data.folds=1"]) == 2
    assert "folds must be at least 2" in capsys.readouterr().err
