"""The noisy sine: its splits, and its scores against quadrature."""

import math

import pytest
import torch
from torch import distributions as D

from datamodules import InputError, NoisySineRegressionDataModule


def test_training_points():
    data = NoisySineRegressionDataModule(num_samples=101, noise_std=0.3, seed=3)
    train = data.split("train")
    assert train.x.shape == train.y.shape == (101, 1)
    torch.testing.assert_close(train.x[:, 0], torch.linspace(-3, 3, 101))
    residuals = train.y - torch.sin(train.x)
    assert residuals.std().item() == pytest.approx(0.3, rel=0.25)
    again = NoisySineRegressionDataModule(num_samples=101, noise_std=0.3, seed=3)
    assert torch.equal(again.split("train").y, train.y)
    other = NoisySineRegressionDataModule(num_samples=101, noise_std=0.3, seed=4)
    assert not torch.equal(other.split("train").y, train.y)


def test_the_true_density_scores_the_optimum():
    data = NoisySineRegressionDataModule(noise_std=0.2)
    test = data.split("test")
    assert len(test.x) == 20_000
    assert test.x.abs().max() <= 3
    truth = D.Normal(torch.sin(test.x.double()), 0.2)
    nll = -truth.log_prob(test.y.double()).mean().item()
    assert nll == pytest.approx(data.optimum["test/nll"].value, abs=1e-6)
    error = (test.y.double() - torch.sin(test.x.double())).square().mean().sqrt().item()
    assert error == pytest.approx(data.optimum["test/rmse"].value, abs=1e-7)


def test_crps_of_the_truth_equals_its_integral():
    grid = torch.linspace(-4, 4, 200_001, dtype=torch.float64)
    y = D.Normal(torch.zeros(1, dtype=torch.float64), 0.2).sample((20_000,))
    cumulative = D.Normal(0.0, 0.2).cdf(grid)
    # E (F - 1)^2 over y: F (1 - F), integrated.
    integral = torch.trapezoid(cumulative * (1 - cumulative), grid).item()
    optimum = NoisySineRegressionDataModule(noise_std=0.2).optimum
    assert integral == pytest.approx(optimum["test/crps"].value, rel=1e-6)
    assert y.std().item() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("x_max", [1.0, 3.0])
def test_baseline_is_the_marginal_variance(x_max):
    data = NoisySineRegressionDataModule(x_max=x_max, noise_std=0.2)
    x = torch.linspace(-x_max, x_max, 400_001, dtype=torch.float64)
    variance = torch.trapezoid(torch.sin(x).square(), x).item() / (2 * x_max) + 0.04
    assert data.baseline["test/mse"].value == pytest.approx(variance, rel=1e-8)
    expected = 0.5 * math.log(2 * math.pi * math.e * variance)
    assert data.baseline["test/nll"].value == pytest.approx(expected, rel=1e-8)


def test_splits_share_no_row():
    data = NoisySineRegressionDataModule()
    rows = [set(data.split(split).y.flatten().tolist()) for split in ("train", "val", "test")]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert len(rows[1] & rows[2]) <= 2  # float32 targets may coincide


@pytest.mark.parametrize(
    "wrong", [{"num_samples": 1}, {"noise_std": 0.0}, {"x_max": -1.0}, {"num_test": 3}]
)
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        NoisySineRegressionDataModule(**wrong)


def test_scale_is_that_of_the_training_points():
    data = NoisySineRegressionDataModule(num_samples=50, noise_std=0.3, seed=2)
    train = data.split("train")
    for name, values in (("x_scaler", train.x), ("y_scaler", train.y)):
        mean, std = data.standardization[name]
        standard = (values.double() - mean) / std
        torch.testing.assert_close(standard.mean(0), torch.zeros(1).double(), atol=1e-12, rtol=0)
        torch.testing.assert_close(standard.square().mean(0), torch.ones(1).double())
