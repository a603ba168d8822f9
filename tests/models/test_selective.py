"""Selective prediction, detection of strange rows, Brier and sharpness against definitions."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score
from torch import distributions as D

import datamodules
from lit_models import LitDeepEnsemble, LitDeepEnsembleClassifier
from lit_models.__main__ import main
from lit_models.layers.densities import GaussianMixture
from lit_models.metrics.gaussian_process import affordable, gaussian_process
from lit_models.metrics.predictive import BrierScore, PredictiveStd
from lit_models.metrics.selective import (
    ClassificationAURC,
    DetectionAUROC,
    RegressionAURC,
    risk_curve,
)


def test_risk_curve_is_the_mean_over_orders_of_equal_rows():
    uncertainty = torch.tensor([0.3, 0.1, 0.3, 0.2, 0.1])
    error = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    curves = []
    for order in itertools.permutations(range(5)):
        if all(uncertainty[a] <= uncertainty[b] for a, b in itertools.pairwise(order)):
            curves.append(error[list(order)].cumsum(0) / torch.arange(1, 6))
    assert len(curves) == 4
    coverage, risk = risk_curve(uncertainty, error)
    torch.testing.assert_close(coverage, torch.arange(1, 6) / 5)
    torch.testing.assert_close(risk, torch.stack(curves).mean(0).double())


def test_aurc_of_classes_rewards_knowing_the_errors():
    log_probs = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]]).log()
    knows, does_not = ClassificationAURC(), ClassificationAURC()
    for rows in (slice(0, 1), slice(1, 4)):
        knows.update(log_probs[rows], torch.tensor([0, 0, 0, 1])[rows])
        does_not.update(log_probs[rows], torch.tensor([1, 1, 0, 1])[rows])
    assert knows.compute().item() == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert does_not.compute().item() == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_aurc_of_numbers_orders_by_the_total_variance():
    means, stds = torch.zeros(2, 3, 1), torch.tensor([[1.0], [3.0], [2.0]]).expand(2, 3, 1)
    metric = RegressionAURC()
    metric.update(GaussianMixture(means, stds), torch.tensor([[1.0], [4.0], [2.0]]))
    assert metric.compute().item() == pytest.approx((1 + 5 / 2 + 21 / 3) / 3)


def test_detection_is_the_area_under_the_curve():
    known, strange = torch.randn(40), torch.randn(30) + 1
    known[:5] = strange[:5]  # ties
    metric = DetectionAUROC()
    for part in known.split(7):
        metric.update(part, strange=False)
    metric.update(strange, strange=True)
    labels = [0] * 40 + [1] * 30
    assert metric.compute().item() == pytest.approx(
        roc_auc_score(labels, torch.cat([known, strange]).numpy())
    )


def test_brier_score():
    logits, target = torch.randn(50, 2, dtype=torch.float64), torch.randint(2, (50,))
    metric = BrierScore()
    for rows in (slice(0, 20), slice(20, 50)):
        metric.update(logits[rows], target[rows])
    # scikit-learn's of two classes counts one of the two squares.
    half = brier_score_loss(target, logits.softmax(1)[:, 1])
    assert metric.compute().item() == pytest.approx(2 * half)


def test_sharpness_is_the_mean_standard_deviation():
    means = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1).expand(2, 4, 1)
    metric = PredictiveStd()
    metric.update(GaussianMixture(means, torch.tensor(1.0)), torch.zeros(4, 1))
    assert metric.compute().item() == pytest.approx(2**0.5)


def test_gaussian_process_is_the_law_it_was_drawn_from():
    """Data of a Gaussian process: its own density scores as the exact one with known scales."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (200, 1))
    kernel = np.exp(-0.5 * (x - x.T) ** 2)
    f = 50 * np.linalg.cholesky(kernel + 1e-9 * np.eye(200)) @ rng.normal(size=200)
    y = 1000 + f + 10 * rng.normal(size=200)
    train, test = slice(0, 120), slice(120, 200)
    mean, std = gaussian_process(x[train], y[train], x[test])
    precision = np.linalg.inv(2500 * kernel[train, train] + 100 * np.eye(120))
    cross = 2500 * kernel[test, train]
    exact = 1000 + cross @ precision @ (y[train] - 1000)
    variance = 2500 + 100 - (cross @ precision * cross).sum(1)
    ours = D.Normal(*map(torch.from_numpy, (mean, std))).log_prob(torch.from_numpy(y[test])).mean()
    known = D.Normal(torch.from_numpy(exact), torch.from_numpy(variance).sqrt())
    exact_score = known.log_prob(torch.from_numpy(y[test])).mean().item()
    assert ours.item() == pytest.approx(exact_score, abs=0.05)
    assert np.abs(mean - exact).max() < 10


def test_gaussian_process_is_left_out_where_it_is_dear():
    assert affordable(1999, 2000)
    assert not affordable(2000, 10)
    assert not affordable(1999, 20_000)


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=120), "kind": rng.choice(["u", "v"], 120)})
    frame["price"] = 100 * np.sin(2 * frame["a"]) + 20 * (frame["kind"] == "u")
    frame["price"] += rng.normal(0, 10, 120)
    frame["dear"] = np.where(frame["price"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "table.csv", index=False)
    strange = frame.drop(columns=["price", "dear"]).assign(a=frame["a"] + 30)
    strange.to_csv(tmp_path / "strange.csv", index=False)
    return tmp_path


def test_rivals_are_scored_on_the_test_rows(tables):
    data = datamodules.CSVTabularDataModule(
        str(tables / "table.csv"), "price", task="regression", drop=["dear"]
    )
    model = LitDeepEnsemble(data.in_features, 1)
    assert model.rivals == {}

    class Trainer:
        datamodule = data

    model._trainer = Trainer()
    scores = model.rivals
    assert set(scores) == {"test/nll", "test/crps", "test/rmse"}
    (rmse,) = scores["test/rmse"].values()
    assert 8 < rmse < 25  # the noise, not the targets' 70


@pytest.mark.parametrize(
    ("model", "target", "drop", "task"),
    [
        (LitDeepEnsemble, "price", "dear", "regression"),
        (LitDeepEnsembleClassifier, "dear", "price", "classification"),
    ],
)
def test_strange_rows_of_a_file(model, target, drop, task, tables, capsys):
    options = ["--data", "CSVTabularDataModule", "--data.path", str(tables / "table.csv")]
    options += ["--data.target", target, "--data.drop", f"[{drop}]", "--data.task", task]
    options += ["--data.ood_path", str(tables / "strange.csv"), "--model.activation", "relu"]
    options += ["--trainer.max_epochs", "30", "--model.optimizer.lr", "0.01", "--config", "cpu"]
    options += ["--trainer.enable_progress_bar", "false", "--runs_dir", str(tables / "runs")]
    assert main(["fit", "--model", model.__name__, *options]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if r.startswith("test/ood_auroc"))
    assert float(row.split()[1]) > 0.9
