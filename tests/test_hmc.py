"""The Hamiltonian sampler against a known posterior."""

import pytest
import torch
from torch.nn import functional as F

from scripts.hmc import Posterior, gradient, sample, split_rhat, unflatten


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


def test_posterior_of_bayesian_linear_regression():
    """A network without hidden layers has a normal posterior in closed form."""
    x = torch.randn(13, 2, dtype=torch.float64)
    y = torch.randn(13, 1, dtype=torch.float64)
    posterior = Posterior(x, y.expand(40, -1, -1), (2, 1), prior_std=0.8, noise_std=0.5)
    generator = torch.Generator().manual_seed(0)
    initial = torch.zeros(40, 3, dtype=torch.float64)
    chains = sample(posterior, initial, 150, 50, path_length=0.8, generator=generator)
    design = torch.cat([x, torch.ones(13, 1, dtype=torch.float64)], dim=1)
    precision = design.T @ design / 0.25 + torch.eye(3, dtype=torch.float64) / 0.64
    mean = torch.linalg.solve(precision, design.T @ y / 0.25)[:, 0]
    std = torch.linalg.inv(precision).diag().sqrt()
    draws = chains.draws.flatten(0, 1)
    assert ((draws.mean(0) - mean).abs() < 0.06 * std).all()
    torch.testing.assert_close(draws.std(0), std, rtol=0.06, atol=0)


def test_outputs_and_gradient_of_the_network():
    sizes = (3, 5, 2)
    x = torch.randn(7, 3, dtype=torch.float64)
    y = torch.randn(2, 7, 2, dtype=torch.float64)
    posterior = Posterior(x, y, sizes, prior_std=0.7, noise_std=0.3)
    theta = torch.randn(2, posterior.num_parameters, dtype=torch.float64)
    value, slope = gradient(posterior, theta)
    for c in range(2):
        own = theta[c].clone().requires_grad_()
        (w1, b1), (w2, b2) = ((w[0], b[0]) for w, b in unflatten(own.unsqueeze(0), sizes))
        outputs = F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)
        expected = -0.5 * ((y[c] - outputs) / 0.3).square().sum() - 0.5 * (own / 0.7).square().sum()
        (expected_slope,) = torch.autograd.grad(expected, own)
        assert value[c].item() == pytest.approx(expected.item(), rel=1e-12)
        torch.testing.assert_close(slope[c], expected_slope, rtol=1e-10, atol=1e-10)


def test_rhat_sees_chains_that_disagree():
    draws = torch.randn(400, 4, 1)
    assert split_rhat(draws).item() == pytest.approx(1.0, abs=0.02)
    apart = draws + 2 * torch.arange(4).reshape(1, 4, 1)
    assert split_rhat(apart).item() > 1.5
