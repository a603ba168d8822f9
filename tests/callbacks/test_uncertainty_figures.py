"""Figures of predictive densities, and the spread beyond the data."""

from types import SimpleNamespace

import pytest
import torch
from helpers import fit

from callbacks import CalibrationPlot, ExtrapolationSpread, PredictiveBand, SelectivePlot
from datamodules import (
    ClassificationDataModule,
    CSVTabularDataModule,
    NoisySineRegressionDataModule,
)
from lit_models import GaussianMixture, LitDeepEnsemble, LitDeepEnsembleClassifier
from lit_models.metrics.selective import ClassificationAURC, RegressionAURC

SMALL = ("--data.num_samples=20", "--data.num_test=100", "--trainer.max_epochs=1")


@pytest.mark.parametrize("experiment", ["bayesian_mlp", "mc_dropout", "deep_ensemble"])
def test_a_fit_draws_both_figures(experiment, tmp_path):
    options = [*SMALL, "--trainer.check_val_every_n_epoch=1", "--config", "cpu"]
    results = fit(experiment, *options, tmp_path=tmp_path)
    figures = {path.stem for path in tmp_path.glob("runs/*/*/figures/*.png")}
    assert {"predictive_band", "calibration"} <= figures
    assert results["metrics"]["test/extrapolation_ratio"] > 0


def test_several_inputs_have_no_band_and_classes_a_reliability_curve(tmp_path):
    data = ClassificationDataModule(num_samples=200, num_classes=3)
    model = LitDeepEnsembleClassifier(data.in_features, 3).eval()
    trainer = SimpleNamespace(datamodule=data)
    with torch.no_grad():
        assert set(CalibrationPlot(num_rows=500).draw(trainer, model)) == {"calibration"}
    path = tmp_path / "table.csv"
    rows = [f"{a},{a * a},{a - 1}" for a in range(40)]
    path.write_text("a,b,y\n" + "\n".join(rows) + "\n")
    table = CSVTabularDataModule(str(path), "y", task="regression")
    trainer = SimpleNamespace(datamodule=table)
    with torch.no_grad():
        assert PredictiveBand().draw(trainer, LitDeepEnsemble(2, 1)) == {}
        assert set(CalibrationPlot().draw(trainer, LitDeepEnsemble(2, 1))) == {"calibration"}


def test_a_calibrated_model_lies_on_the_diagonal():
    data = ClassificationDataModule(num_samples=200, num_classes=2)

    class Bayes(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def predictive(self, x):
            from lit_models import CategoricalMixture

            logits = torch.stack([torch.zeros(len(x)), x[:, 0]], dim=1)
            return CategoricalMixture(logits.unsqueeze(0))

    x = torch.randn(20_000, 1)
    y = (torch.rand(20_000) < x[:, 0].sigmoid()).long()
    data._splits["test"] = type(data.split("test"))(x, y)
    figure = CalibrationPlot().draw(SimpleNamespace(datamodule=data), Bayes())["calibration"]
    assert float(figure.axes[0].get_title().split()[2].rstrip(",")) < 0.02


def test_spread_is_the_smaller_end_over_the_mean_inside():
    logged = {}

    class Wedge:
        """Two networks that differ by 2 inside and by 6 or 8 outside."""

        device, dtype = torch.device("cpu"), torch.float32

        def predictive(self, x):
            half = torch.where(x.abs() <= 3, 1.0, torch.where(x > 0, 4.0, 3.0))
            return GaussianMixture(torch.stack([-half, half]), torch.tensor(0.1))

        def log(self, name, value, sync_dist):
            logged[name] = value.item()

    trainer = SimpleNamespace(datamodule=SimpleNamespace(in_features=1))
    ExtrapolationSpread().on_test_epoch_end(trainer, Wedge())
    assert logged == {"test/extrapolation_ratio": pytest.approx(3.0)}


def areas(figure):
    """Area under the model's order and under the best one."""
    title = figure["selective_prediction"].axes[0].get_title()
    return [float(part.split()[-1]) for part in title.split(",")[:2]]


def test_selective_prediction_of_classes_has_the_area_of_the_metric():
    data = ClassificationDataModule(num_samples=200, num_classes=3)
    model = LitDeepEnsembleClassifier(data.in_features, 3).eval()
    test = data.split("test")
    metric = ClassificationAURC()
    with torch.no_grad():
        figure = SelectivePlot(num_rows=2500).draw(SimpleNamespace(datamodule=data), model)
        metric.update(model(test.x[:2500]), test.y[:2500])
        wrong = (model(test.x[:2500]).argmax(1) != test.y[:2500]).double()
    area, best = areas(figure)
    assert area == pytest.approx(metric.compute().item(), rel=1e-3)
    place = torch.arange(1, 2501)
    expected = ((place - (wrong == 0).sum()).clamp(min=0) / place).mean().item()
    assert best == pytest.approx(expected, rel=1e-3)
    assert best < area


def test_selective_prediction_of_numbers_has_the_area_of_the_metric():
    data = NoisySineRegressionDataModule(num_samples=20, num_test=400)
    model = LitDeepEnsemble(1, 1).eval()
    metric = RegressionAURC()
    test = data.split("test")
    with torch.no_grad():
        figure = SelectivePlot().draw(SimpleNamespace(datamodule=data), model)
        metric.update(model.predictive(test.x), test.y)
    area, best = areas(figure)
    assert area == pytest.approx(metric.compute().item(), rel=1e-3)
    assert best < area
