r"""Noisy sines: the exact Bayes forecast of a window, and what other predictors reach.

A series is :math:`x_k = \sin(2\pi f k / P + \phi) + \beta u_{k-1} + \sigma \epsilon_k` with period
P, a frequency f and a phase :math:`\phi` drawn afresh for each window, and, where :math:`\beta` is
not 0, an observed standard normal input series u. The best forecast of step T + h is the posterior
mean given the window, an integral over (f, phi) done on a midpoint grid; its expected squared error
is the posterior variance of the sine plus the variance of what no window tells.

The floor does not rise with h: only the phase is uncertain, and its effect is
:math:`\cos^2` of the phase at the target.

Shape letters: T steps of a window, H steps ahead, G points of the grid, W windows.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 2**17  # windows x grid points at a time, which a cache holds
_LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


class Floors(NamedTuple):
    """Expected squared errors per step ahead, each ``(H,)``.

    Attributes:
        bayes: Of the posterior mean.
        linear: Of the best linear predictor from the series' window.
        persistence: Of the last observed value.
    """

    bayes: Tensor
    linear: Tensor
    persistence: Tensor


class DensityFloors(NamedTuple):
    """Expected scores of the exact posterior predictive density, averaged over the horizon.

    Attributes:
        pinball: Pinball loss, averaged over the levels of the quantile heads.
        crps: Continuous ranked probability score.
    """

    pinball: float
    crps: float


@dataclass(frozen=True)
class SineLaw:
    r"""The law of a window and of the steps after it.

    Args:
        window: Length T of the observed window.
        horizon: Number H of steps to forecast.
        noise_std: Standard deviation :math:`\sigma` of the noise.
        period: Samples P of one period at frequency 1.
        frequency_range: Interval the frequency is uniform on; equal ends fix it.
        phase_turns: Length of the interval from 0 that the phase is uniform on, in turns.
        covariate_effect: Effect :math:`\beta` of the input series.
    """

    window: int
    horizon: int
    noise_std: float
    period: float
    frequency_range: tuple[float, float]
    phase_turns: float
    covariate_effect: float

    def clean(self, frequency: Tensor, phase: Tensor, length: int) -> Tensor:
        """Sines without noise, ``(*, length)``."""
        steps = torch.arange(length, dtype=torch.float64)
        angles = frequency.unsqueeze(-1) * steps
        return angles.div_(self.period).mul_(2 * math.pi).add_(phase.unsqueeze(-1)).sin_()

    def grid(self) -> Tensor:
        """Sines at midpoints of the prior, ``(G, T + H)``."""
        low, high = self.frequency_range
        num_frequencies, num_phases = (1, 2048) if low == high else (161, 181)
        frequency = low + (high - low) * (torch.arange(num_frequencies) + 0.5) / num_frequencies
        phase = 2 * math.pi * self.phase_turns * (torch.arange(num_phases) + 0.5) / num_phases
        points = torch.cartesian_prod(frequency.double(), phase.double())
        return self.clean(points[:, 0], points[:, 1], self.window + self.horizon)

    def windows(self, grid: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Noisy windows of points of the grid, ``(W, T)``, and the noise's variances, ``(T,)``."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(grid), (count,), generator=generator)
        variance = torch.full((self.window,), self.noise_std**2, dtype=torch.float64)
        variance[0] += self.covariate_effect**2
        noise = torch.randn(count, self.window, generator=generator, dtype=torch.float64)
        return grid[rows, : self.window] + noise * variance.sqrt(), variance


@lru_cache(maxsize=16)
def error_floors(law: SineLaw, seed: int) -> Floors:
    """Errors of three predictors per step ahead; windows of one seed stand for all."""
    grid = law.grid()
    unseen = torch.full((law.horizon,), law.noise_std**2, dtype=torch.float64)
    unseen[1:] += law.covariate_effect**2  # the input behind step T + 1 is in the window
    extra = law.noise_std**2 + law.covariate_effect**2
    return Floors(
        bayes=_posterior_variance(law, grid, seed) + unseen,
        linear=_linear_error(grid, law.window, extra),
        persistence=_persistence_error(grid, law.window, extra),
    )


def _posterior_variance(law: SineLaw, grid: Tensor, seed: int) -> Tensor:
    """Expected posterior variance of the sine per step ahead, ``(H,)``."""
    past, future = grid.tensor_split([law.window], dim=1)
    windows, variance = law.windows(grid, 40_000 if len(grid) < 10_000 else 10_000, seed)
    moments = torch.cat([future, future.square()], dim=1)
    norms = (past.square() / variance).sum(1)
    total = torch.zeros(law.horizon, dtype=torch.float64)
    for chunk in torch.split(windows, max(1, _CHUNK // len(past))):
        log_likelihood = torch.addmm(-0.5 * norms, chunk / variance, past.T)
        mean, square = (log_likelihood.softmax(1) @ moments).chunk(2, dim=1)
        total += (square - mean.square()).sum(0)
    return total / len(windows)


def _linear_error(grid: Tensor, window: int, noise_variance: float) -> Tensor:
    """Error of the best linear predictor, from the prior's exact moments, ``(H,)``."""
    centered = grid - grid.mean(0)
    covariance = centered.T @ centered / len(grid)
    covariance.diagonal().add_(noise_variance)
    past, cross = covariance[:window, :window], covariance[:window, window:]
    explained: Tensor = (cross * torch.linalg.solve(past, cross)).sum(0)
    return covariance.diagonal()[window:] - explained


def _persistence_error(grid: Tensor, window: int, noise_variance: float) -> Tensor:
    """Error of the last observed value, ``(H,)``."""
    distance: Tensor = grid[:, window:] - grid[:, window - 1 : window]
    return distance.square().mean(0) + 2 * noise_variance


@lru_cache(maxsize=16)
def density_floors(law: SineLaw, seed: int) -> DensityFloors:
    r"""Expected scores of the exact posterior predictive density.

    With its distribution function F and its mean m, the continuous ranked probability score of
    a density that is right is :math:`\int F (1 - F)`, and the pinball loss at its quantile q is
    :math:`\tau (m - q) + \int_{-\infty}^q F`, averaged over the levels of the quantile heads.
    Clean values are put on a fine grid first, split between the two nearest points.
    """
    grid = law.grid()
    past, future = grid.tensor_split([law.window], dim=1)
    count = max(4000 // law.horizon, 200)
    windows, variance = law.windows(grid, count, seed)
    scores = torch.zeros(2, dtype=torch.float64)
    for chunk in torch.split(windows, 1000):
        log_likelihood = (chunk / variance) @ past.T - 0.5 * (past.square() / variance).sum(1)
        weights = log_likelihood.softmax(1)
        for step in range(law.horizon):
            extra = law.covariate_effect**2 if step else 0.0
            std = math.sqrt(law.noise_std**2 + extra)
            scores += _density_scores(weights, future[:, step], std)
    return DensityFloors(*(scores / (count * law.horizon)).tolist())


def _density_scores(weights: Tensor, clean: Tensor, std: float) -> Tensor:
    """Pinball loss and CRPS of mixtures of normal densities, summed over the rows, ``(2,)``.

    Args:
        weights: Posterior of the grid's points, ``(W, G)``.
        clean: Clean value of each, ``(G,)``, in [-1, 1].
        std: Standard deviation of the noise.
    """
    width = min(0.01, std / 10)
    num_bins = math.ceil(2 / width) + 2
    place = (clean + 1) / width
    low = place.long()
    part = place - low
    binned = weights.new_zeros(len(weights), num_bins)
    binned.index_add_(1, low, weights * (1 - part))
    binned.index_add_(1, low + 1, weights * part)
    centers = width * torch.arange(num_bins, dtype=torch.float64) - 1
    values = torch.arange(-1 - 8 * std, 1 + 8 * std, width, dtype=torch.float64)
    cdf = binned @ torch.special.ndtr((values - centers.unsqueeze(1)) / std)
    crps = torch.trapezoid(cdf * (1 - cdf), dx=width)
    below = torch.nn.functional.pad(torch.cumulative_trapezoid(cdf, dx=width), (1, 0))
    mean = binned @ centers
    losses = torch.zeros_like(mean)
    for level in _LEVELS:
        after = (cdf < level).sum(1).clamp(1, len(values) - 1).unsqueeze(1)
        ends = [table.gather(1, after + shift)[:, 0] for table in (cdf, below) for shift in (-1, 0)]
        share = (level - ends[0]) / (ends[1] - ends[0])
        quantile = values[after[:, 0] - 1] + share * width
        # The integral of a distribution function that is straight between two points.
        integral = ends[2] + share * width * (ends[0] + 0.5 * share * (ends[1] - ends[0]))
        losses += level * (mean - quantile) + integral
    return torch.stack([(losses / len(_LEVELS)).sum(), crps.sum()])
