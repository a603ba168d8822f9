"""Exact answers about diffused mixtures: quadrature, sampling and published numbers as oracles."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from datamodules import MixtureLaw
from lit_models.layers.gaussian_diffusion import GaussianDiffusion

LEVELS = GaussianDiffusion(1000).alphas_cumprod


def mixture(weights, means, stds):
    means = torch.tensor(means, dtype=torch.float64)
    stds = torch.tensor(stds, dtype=torch.float64)[:, None].expand_as(means)
    return MixtureLaw(torch.tensor(weights, dtype=torch.float64), means, stds)


GAUSSIAN = mixture([1.0], [[3.0]], [2.0])
TWO = mixture([0.3, 0.7], [[-1.5], [1.0]], [0.25, 0.4])
PLANE = mixture([0.2, 0.5, 0.3], [[-1.0, 0.5], [1.0, 0.0], [0.3, -2.0]], [0.3, 0.5, 0.2])


@pytest.mark.parametrize("level", [0.9999, 0.6, 0.02])
def test_noise_prediction_by_quadrature(level):
    """E[eps | x_t] as a ratio of integrals over x_0."""
    x0 = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    prior = TWO.log_prob(x0[:, None])
    x_t = torch.tensor([-1.3, -0.4, 0.1, 2.2], dtype=torch.float64)
    expected = []
    for x in x_t:
        noise = (x - math.sqrt(level) * x0) / math.sqrt(1 - level)
        weight = (prior - 0.5 * noise.square()).softmax(0)
        expected.append((weight * noise).sum())
    got = TWO.noise(x_t[:, None], torch.full((4,), level, dtype=torch.float64))
    torch.testing.assert_close(got[:, 0], torch.stack(expected), rtol=1e-7, atol=1e-8)


def test_noise_prediction_is_the_score():
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    level = torch.tensor(0.37, dtype=torch.float64)
    (score,) = torch.autograd.grad(PLANE.noised(level).log_prob(x).sum(), x)
    predicted = PLANE.noise(x.detach(), level.expand(7))
    torch.testing.assert_close(predicted, -math.sqrt(1 - 0.37) * score, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (GAUSSIAN, 0.395407),
        (GAUSSIAN.standardized(GAUSSIAN.mean, GAUSSIAN.std), 0.275513),
        (TWO, 0.24047),
    ],
    ids=["gaussian", "standardized", "mixture"],
)
def test_smallest_loss_of_the_linear_schedule(law, expected):
    assert law.min_loss(LEVELS).mean().item() == pytest.approx(expected, abs=6e-6)
    if law is GAUSSIAN:
        closed = 4 * LEVELS / (4 * LEVELS + 1 - LEVELS)
        torch.testing.assert_close(law.min_loss(LEVELS[:40]), closed[:40], rtol=1e-9, atol=0)
        assert closed.mean().item() == pytest.approx(expected, abs=1e-6)


def test_smallest_loss_in_the_plane_by_sampling():
    level = torch.tensor(0.8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x0 = PLANE.sample(100_000, generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x_t = level.sqrt() * x0 + (1 - level).sqrt() * noise
    losses = (noise - PLANE.noise(x_t, level.expand(len(x_t)))).square().mean(1)
    error = 4 * losses.std().item() / math.sqrt(len(losses))
    assert PLANE.min_loss(level[None]).item() == pytest.approx(losses.mean().item(), abs=error)


def test_distribution_function_and_quantiles_against_scipy():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    expected = 0.3 * stats.norm.cdf(x, -1.5, 0.25) + 0.7 * stats.norm.cdf(x, 1.0, 0.4)
    np.testing.assert_allclose(TWO.cdf(x), expected, rtol=1e-9)
    p = torch.tensor([1e-6, 0.1, 0.3, 0.55, 1 - 1e-6], dtype=torch.float64)
    torch.testing.assert_close(TWO.cdf(TWO.quantile(p)), p, rtol=1e-9, atol=1e-12)
    assert TWO.mean.item() == pytest.approx(0.25)
    assert TWO.std.item() ** 2 == pytest.approx(0.3 * 2.3125 + 0.7 * 1.16 - 0.0625)


@pytest.mark.parametrize("law", [GAUSSIAN, TWO], ids=["gaussian", "mixture"])
def test_wasserstein_by_quadrature(law):
    samples = law.sample(11, torch.Generator().manual_seed(4))[:, 0]

    def difference(x):
        empirical = (samples <= x).double().mean().item()
        return abs(empirical - law.cdf(torch.tensor([x], dtype=torch.float64)).item())

    cuts = sorted([-20.0, *samples.tolist(), 30.0])
    pieces = itertools.pairwise(cuts)
    expected = sum(integrate.quad(difference, *piece, limit=200)[0] for piece in pieces)
    assert law.wasserstein(samples) == pytest.approx(expected, rel=1e-5)


def test_noise_of_the_wasserstein_distance_by_sampling():
    generator = torch.Generator().manual_seed(0)
    for law, n in ((GAUSSIAN, 50), (TWO, 7)):
        draws = [law.wasserstein(law.sample(n, generator)) for _ in range(400)]
        error = 4 * np.std(draws) / math.sqrt(len(draws))
        assert law.wasserstein_noise(n) == pytest.approx(np.mean(draws), abs=error)
    assert GAUSSIAN.wasserstein_noise(1000) == pytest.approx(0.0812, abs=1e-3)


def test_projection_of_the_plane():
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    samples = PLANE.sample(20_000, torch.Generator().manual_seed(1)) @ direction
    line = PLANE.projected(direction)
    assert line.wasserstein(samples) < 3 * line.wasserstein_noise(20_000)
    assert line.mean.item() == pytest.approx((PLANE.mean @ direction).item())


def test_standardized_law_has_mean_0_and_deviation_1():
    law = PLANE.standardized(PLANE.mean, PLANE.std)
    torch.testing.assert_close(law.mean, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(law.std, torch.ones(2, dtype=torch.float64))
