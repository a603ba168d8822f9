"""The linear task: exact scores, and a least-squares oracle from scikit-learn."""

import pytest
import torch
from sklearn.linear_model import LinearRegression

from datamodules import InputError, LinearDataModule
from datamodules.laws.noise import paired_noise


def test_test_error_is_the_population_error():
    data = LinearDataModule(in_features=3, num_test=1000)
    test = data.split("test")
    slope, intercept = data.coefficients()
    wrong_slope, wrong_intercept = slope + torch.tensor([0.1, -0.2, 0.3]), intercept + 0.5
    preds = test.x.double() @ wrong_slope + wrong_intercept
    mse = (preds - test.y[:, 0]).square().mean().item()
    assert mse == pytest.approx(0.1**2 + 0.01 + 0.04 + 0.09 + 0.25, rel=1e-6)


def test_ols_is_scikit_learns():
    data = LinearDataModule(num_samples=31, in_features=5)
    train = data.split("train")
    oracle = LinearRegression().fit(train.x.double().numpy(), train.y[:, 0].double().numpy())
    torch.testing.assert_close(data.ols()[:-1], torch.tensor(oracle.coef_))
    assert data.ols()[-1].item() == pytest.approx(oracle.intercept_)


def test_ols_costs_what_theory_says():
    """Its mean population error over draws is s^2 (1 + 1/n)(n - 2)/(n - p - 2)."""
    errors = [LinearDataModule(num_samples=20, num_test=20, seed=s).ols_mse for s in range(400)]
    expected = 0.01 * (1 + 1 / 20) * 18 / 16
    assert sum(errors) / 400 == pytest.approx(expected, rel=0.02)


def test_paired_noise_is_exact():
    noise = paired_noise(101, 3, 0.7, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise.mean(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(noise.square().mean(0), torch.full((3,), 0.49, dtype=torch.float64))
    assert torch.equal(noise[:101], -noise[101:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
        ({"num_samples": 2}, "num_samples must exceed in_features=2, got 2"),
        ({"noise_std": -1.0}, "noise_std must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        LinearDataModule(**arguments)
