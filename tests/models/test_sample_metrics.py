"""Distances between samples: scipy and direct sums as oracles; chunks as ranks."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from lit_models.layers.shared_noise import SharedNoise
from lit_models.metrics.samples import MMD, SlicedWasserstein, wasserstein


@pytest.mark.parametrize(("n", "m"), [(31, 31), (31, 17), (1, 13), (12, 18)])
def test_wasserstein_against_scipy(n, m):
    x, y = torch.randn(n, 5, dtype=torch.float64), 2 * torch.randn(m, 5, dtype=torch.float64)
    expected = [wasserstein_distance(x[:, p], y[:, p]) for p in range(5)]
    np.testing.assert_allclose(wasserstein(x, y), expected, rtol=1e-10)


def test_one_dimension_has_one_direction():
    metric = SlicedWasserstein(1)
    x, y = torch.randn(23, 1).double(), torch.randn(23, 1).double() + 1
    metric.update(x[:10], y[:10])
    metric.update(x[10:], y[10:])
    expected = wasserstein_distance(x[:, 0], y[:, 0])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)


def test_sliced_distance_of_a_shift():
    """Shifted sets differ by |shift . u| along u; the mean over the plane is 2 |shift| / pi."""
    metric = SlicedWasserstein(2, num_directions=4096)
    x = torch.randn(29, 2)
    metric.update(x, x + torch.tensor([3.0, 4.0]))
    assert metric.compute().item() == pytest.approx(2 * 5 / math.pi, rel=0.02)


def test_mmd_by_the_sum_over_pairs():
    metric = MMD(3, num_frequencies=64)
    x, y = torch.randn(11, 3).double(), torch.randn(7, 3).double() + 0.5

    def kernel(a, b):
        differences = (a[:, None] - b[None]) @ metric.frequencies
        return differences.cos().mean(-1)

    square = kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()
    metric.update(x[:4], y[:3])
    metric.update(x[4:], y[3:])
    assert metric.compute().item() == pytest.approx(square.sqrt().item(), rel=1e-5)


def test_mmd_kernel_is_nearly_gaussian():
    metric = MMD(3, length_scale=1.2, num_frequencies=20_000)
    x = torch.randn(5, 3).double()
    features = metric.features(x)
    distances = torch.cdist(x, x).square()
    expected = torch.exp(-distances / (2 * 3 * 1.2**2))
    torch.testing.assert_close(features @ features.T, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_rows", [1, 16, 23, 64, 65])
def test_shared_noise_is_the_same_on_any_number_of_ranks(num_rows, world_size):
    def draw(rank, size):
        share = len(range(rank, num_rows, size))
        noise = SharedNoise(7, share, rank, size, torch.device("cpu"))
        return noise.uniform(), noise.normal((3,), torch.float32), noise.normal((), torch.float64)

    whole = draw(0, 1)
    for rank in range(min(world_size, num_rows)):
        for part, all_rows in zip(draw(rank, world_size), whole, strict=True):
            assert torch.equal(part, all_rows[rank::world_size])
            assert part.is_contiguous()  # a metric views it as a vector
    assert not torch.equal(whole[1][:, 0].double(), whole[2])
