"""Sine windows: floors against simulation and closed forms, splits, the exact score of a test."""

import math

import pytest
import torch

from datamodules import InputError, SineDataModule

GRU = {"window": 30, "period": 29, "frequency_range": (0.5, 1.5), "phase_turns": 0.5}


@pytest.mark.parametrize(
    ("arguments", "floor", "tolerance"),
    [
        ({}, 0.010676, 2e-5),
        ({"horizon": 50}, 0.010771, 2e-5),
        (GRU, 0.01149, 1e-4),
    ],
)
def test_known_floors(arguments, floor, tolerance):
    data = SineDataModule(**arguments)
    assert data.floors.bayes.mean().item() == pytest.approx(floor, abs=tolerance)


def test_floor_is_not_monotone_in_the_horizon():
    bayes = SineDataModule(horizon=50).floors.bayes
    assert bayes.argmax().item() + 1 == pytest.approx(16, abs=1)
    assert bayes.argmin().item() + 1 == pytest.approx(41, abs=1)


def posterior_mean(windows, frequencies, phases, period, target, std):
    """By its definition, on a grid of the test's own: sums of exponentials, point by point."""
    f, phi = (g.flatten() for g in torch.meshgrid(frequencies, phases, indexing="ij"))
    steps = torch.arange(windows.shape[1], dtype=torch.float64)
    past = torch.sin(2 * math.pi * f[:, None] * steps / period + phi[:, None])
    ahead = torch.sin(2 * math.pi * f * target / period + phi)
    means = []
    for window in windows:
        distance = ((window - past) ** 2).sum(1) / (2 * std**2)
        likelihood = torch.exp(distance.min() - distance)
        means.append((likelihood * ahead).sum() / likelihood.sum())
    return torch.stack(means)


@pytest.mark.parametrize(("arguments", "grid"), [({}, (1, 500)), (GRU, (90, 110))])
def test_the_posterior_mean_reaches_the_floor(arguments, grid):
    data = SineDataModule(num_test=1500, **arguments)
    test = data.split("test")
    low, high = data.frequency_range
    frequencies = low + (high - low) * (torch.arange(grid[0]) + 0.5).double() / grid[0]
    phases = 2 * math.pi * data.phase_turns * (torch.arange(grid[1]) + 0.5).double() / grid[1]
    x = test.x[:, :, 0].double()
    preds = posterior_mean(x, frequencies, phases, data.period, data.window, data.noise_std)
    errors = (preds - test.y[:, 0].double()).square()
    # Noise comes in pairs, so that the spread of the excess alone blurs the mean.
    pairs = errors.view(2, -1).mean(0)
    standard_error = pairs.std() / math.sqrt(len(pairs))
    floor = data.floors.bayes.mean()
    assert abs(errors.mean() - floor) < 4 * standard_error + 1e-4 * floor


def test_linear_floor_is_the_best_linear_predictor():
    data = SineDataModule(num_samples=200_000, num_test=40_000)
    train, test = data.split("train"), data.split("test")
    x = torch.nn.functional.pad(train.x[:, :, 0].double(), (0, 1), value=1.0)
    weights = torch.linalg.lstsq(x, train.y.double()).solution
    preds = torch.nn.functional.pad(test.x[:, :, 0].double(), (0, 1), value=1.0) @ weights
    mse = (preds - test.y.double()).square().mean().item()
    assert mse == pytest.approx(data.floors.linear.mean().item(), rel=5e-3)
    persistence = (test.x[:, -1] - test.y).square().mean().item()
    assert persistence == pytest.approx(data.floors.persistence.mean().item(), rel=2e-2)


def test_the_covariate_carries_what_its_floor_says():
    """With the extra series known, what remains is the sine: the floor of the plain task."""
    data = SineDataModule(covariate_effect=0.3, num_test=20_000)
    test = data.split("test")
    assert data.in_features == 2
    cleared = test.x[:, 1:, 0] - 0.3 * test.x[:, :-1, 1]
    target = test.y[:, 0] - 0.3 * test.x[:, -1, 1]
    plain = SineDataModule(window=19)
    train = plain.split("train")
    weights = torch.linalg.lstsq(train.x[:, :, 0].double(), train.y.double()).solution
    mse = (cleared.double() @ weights - target[:, None].double()).square().mean().item()
    assert mse == pytest.approx(plain.floors.linear.item(), rel=0.03)
    assert data.optimum["test/mse"].value == pytest.approx(
        plain.optimum["test/mse"].value, rel=0.01
    )
    assert data.baseline["test/mse"].value > 9 * data.optimum["test/mse"].value


def test_a_test_error_is_noise_plus_distance_to_the_clean_value():
    data = SineDataModule(num_test=1000, horizon=3)
    test = data.split("test")
    clean = test.y.view(2, -1, 3).mean(0)
    preds = clean + 0.05
    mse = (preds - test.y.view(2, -1, 3)).square().mean().item()
    assert mse == pytest.approx(0.1**2 + 0.05**2, rel=1e-5)


def test_splits_are_disjoint_and_repeatable():
    first, second = SineDataModule(num_samples=50), SineDataModule(num_samples=50)
    for split in ("train", "val", "test"):
        assert torch.equal(first.split(split).x, second.split(split).x)
    assert not torch.equal(first.split("train").x[:40], first.split("test").x[:40])
    assert not torch.equal(
        first.split("train").x, SineDataModule(num_samples=50, seed=1).split("train").x
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_std": 0.0}, "noise_std must be positive, got 0"),
        ({"period": -1.0}, "period must be positive, got -1"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"frequency_range": (1.5, 0.5)}, "frequency_range must be positive and ascending"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SineDataModule(**arguments)


def test_density_floors_of_a_known_phase_are_those_of_the_noise():
    """With no phase to find the density is normal: CRPS std / sqrt(pi), pinball std phi(z)."""
    floors = SineDataModule(phase_turns=1e-9, noise_std=0.2, horizon=2).density_floors
    normal = torch.distributions.Normal(0.0, 1.0)
    levels = torch.tensor([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
    pinball = 0.2 * normal.log_prob(normal.icdf(levels)).exp().mean().item()
    assert floors.crps == pytest.approx(0.2 / math.sqrt(math.pi), rel=1e-3)
    assert floors.pinball == pytest.approx(pinball, rel=1e-3)


def test_the_posterior_scores_what_its_floor_says():
    """Quantiles of the posterior, by sorting the grid's draws, on windows of the test."""
    data = SineDataModule(num_test=4000)
    test = data.split("test")
    grid = data.law.grid()
    past, ahead = grid[:, : data.window], grid[:, data.window]
    rows = torch.arange(0, 4000, 4)
    log = (test.x[rows, :, 0].double() @ past.T - 0.5 * past.square().sum(1)) / data.noise_std**2
    generator = torch.Generator().manual_seed(0)
    draws = ahead[torch.multinomial(log.softmax(1), 4000, replacement=True, generator=generator)]
    draws = draws + data.noise_std * torch.randn(draws.shape, generator=generator)
    levels = torch.tensor([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975]).double()
    error = test.y[rows].double() - draws.quantile(levels, dim=1).T
    losses = torch.maximum(levels * error, (levels - 1) * error).mean(1)
    standard_error = losses.std().item() / math.sqrt(len(losses))
    assert abs(losses.mean().item() - data.density_floors.pinball) < 4 * standard_error
