"""The Hamiltonian sampler against a known posterior."""

import pytest
import torch
from torch import distributions as D
from torch.nn import functional as F

from scripts.hmc import HiddenLayer, gradient, sample, split_rhat


def test_moments_of_a_correlated_normal():
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    mean = torch.tensor([2.0, -1.0], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)

    def log_density(state):
        centered = state - mean
        return -0.5 * torch.einsum("ci,ij,cj->c", centered, precision, centered)

    generator = torch.Generator().manual_seed(0)
    initial = torch.zeros(50, 2, dtype=torch.float64)
    chains = sample(log_density, initial, 200, 50, path_length=2.0, generator=generator)
    assert 0.6 < chains.acceptance < 0.95
    draws = chains.draws.flatten(0, 1)
    assert (draws.mean(0) - mean).abs().max() < 0.06
    torch.testing.assert_close(torch.cov(draws.T), covariance, rtol=0.1, atol=0.03)
    assert split_rhat(chains.draws).max() < 1.02


@pytest.fixture
def layer():
    """A posterior of three chains, states, and the data."""
    x = torch.randn(7, 2, dtype=torch.float64)
    y = torch.randn(3, 7, dtype=torch.float64)
    posterior = HiddenLayer(x, y, hidden_size=4, prior_std=0.7, noise_std=0.3)
    theta = torch.randn(3, posterior.num_parameters, dtype=torch.float64)
    return posterior, theta, x, y


def hidden(theta, x):
    """Hidden units and a 1 of one state."""
    weights = theta.reshape(4, 3)
    units = torch.tanh(F.linear(x, weights[:, :2], weights[:, 2]))
    return torch.cat([units, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)


def test_log_posterior_without_the_output_layer_is_that_of_normal_targets(layer):
    posterior, theta, x, y = layer
    value, slope = gradient(posterior, theta)
    expected = []
    for state, target in zip(theta, y, strict=True):
        own = state.clone().requires_grad_()
        phi = hidden(own, x)
        covariance = 0.49 * phi @ phi.T + 0.09 * torch.eye(7, dtype=torch.float64)
        normal = D.MultivariateNormal(torch.zeros(7, dtype=torch.float64), covariance)
        log_posterior = normal.log_prob(target) - 0.5 * (own / 0.7).square().sum()
        (expected_slope,) = torch.autograd.grad(log_posterior, own)
        torch.testing.assert_close(slope[len(expected)], expected_slope, rtol=1e-9, atol=1e-9)
        expected.append(log_posterior.item())
    # Up to one constant for all states.
    differences = value - torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(differences, differences[:1].expand(3), rtol=1e-10, atol=1e-10)


def test_predictions_are_those_of_bayesian_linear_regression_on_the_hidden_units(layer):
    posterior, theta, x, y = layer
    rows = torch.randn(5, 2, dtype=torch.float64)
    mean, variance = posterior.predict(theta, y[1], rows)
    for state, own_mean, own_variance in zip(theta, mean, variance, strict=True):
        phi, at = hidden(state, x), hidden(state, rows)
        precision = phi.T @ phi / 0.09 + torch.eye(5, dtype=torch.float64) / 0.49
        weights = torch.linalg.solve(precision, phi.T @ y[1] / 0.09)
        torch.testing.assert_close(own_mean, at @ weights, rtol=1e-9, atol=1e-9)
        expected = (at @ torch.linalg.inv(precision) @ at.T).diagonal()
        torch.testing.assert_close(own_variance, expected, rtol=1e-9, atol=1e-9)


def test_rhat_sees_chains_that_disagree():
    draws = torch.randn(400, 4, 1)
    assert split_rhat(draws).item() == pytest.approx(1.0, abs=0.02)
    apart = draws + 2 * torch.arange(4).reshape(1, 4, 1)
    assert split_rhat(apart).item() > 1.5
