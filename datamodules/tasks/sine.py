r"""Noisy sine windows with the exact Bayes forecast.

A series is :math:`x_k = \sin(2\pi f k / P + \phi) + \beta u_{k-1} + \sigma \epsilon_k` with period
P, a frequency f and a phase :math:`\phi` drawn afresh for each window, and, where :math:`\beta` is
not 0, an observed standard normal input series u. The best forecast of step T + h is the posterior
mean given the window, an integral over (f, phi) done on a midpoint grid; its expected squared error
is the posterior variance of the sine plus the variance of what no window tells.

The floor does not rise with h: only the phase is uncertain, and its effect is
:math:`\cos^2` of the phase at the target.
"""

import math
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SeriesBatch
from datamodules.errors import InputError, at_least
from datamodules.laws.draws import blocks, passed
from datamodules.laws.noise import paired_noise

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


class SineDataModule(LitDataModule[SeriesBatch]):
    r"""Windows of noisy sines with random phase, and where asked random frequency.

    Target noise of validation and test comes in pairs of opposite sign (see
    :func:`~datamodules.laws.noise.paired_noise`): their mean squared error is the noise variance
    plus the mean squared distance to the clean value.

    Args:
        num_samples: Training windows.
        noise_std: Standard deviation :math:`\sigma` of the noise.
        window: Length T of the observed window.
        horizon: Number H of steps to forecast.
        period: Samples P of one period at frequency 1.
        frequency_range: Interval the frequency is uniform on; equal ends fix it.
        phase_turns: Length of the interval from 0 that the phase is uniform on, in turns.
        covariate_effect: Effect :math:`\beta` of the extra input series; 0 leaves it out.
        num_auxiliary: Steps beyond the horizon given with the training targets.
        num_test: Windows of the test set; validation has a tenth of it.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.

    Example:
        >>> data = SineDataModule(noise_std=0.1, window=20)
        >>> data.split("train").x.shape[1:]
        torch.Size([20, 1])
        >>> data.optimum["test/mse"].value < data.baseline["test/mse"].value
        True
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        noise_std: float = 0.1,
        window: int = 20,
        horizon: int = 1,
        period: float = 99.9,
        frequency_range: tuple[float, float] = (1.0, 1.0),
        phase_turns: float = 1.0,
        covariate_effect: float = 0.0,
        num_auxiliary: int = 0,
        num_test: int = 40_000,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=4000)
        at_least(
            num_samples=(num_samples, 1),
            window=(window, 1),
            horizon=(horizon, 1),
            num_test=(num_test, 20),
            num_auxiliary=(num_auxiliary, 0),
        )
        for name, value in (
            ("noise_std", noise_std),
            ("period", period),
            ("phase_turns", phase_turns),
        ):
            if value <= 0:
                raise InputError(f"{name} must be positive, got {value}")
        low, high = frequency_range
        if not 0 < low <= high:
            raise InputError(f"frequency_range must be positive and ascending, got {low}, {high}")
        self.num_samples, self.num_test = num_samples, num_test
        self.noise_std, self.covariate_effect = noise_std, covariate_effect
        self.window, self.horizon, self.num_auxiliary = window, horizon, num_auxiliary
        self.period, self.frequency_range = period, (low, high)
        self.phase_turns = phase_turns

    @property
    def in_features(self) -> int:
        """Number of input series."""
        return 2 if self.covariate_effect else 1

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return self.num_samples

    def _clean(self, frequency: Tensor, phase: Tensor, length: int) -> Tensor:
        """Sines without noise, ``(*, length)``."""
        steps = torch.arange(length, dtype=torch.float64)
        angles = frequency.unsqueeze(-1) * steps
        return angles.div_(self.period).mul_(2 * math.pi).add_(phase.unsqueeze(-1)).sin_()

    def make_split(self, split: Split) -> SeriesBatch:
        """Windows of one split."""
        generator = self.generator(split)
        train = split == "train"
        count = self.num_samples if train else self.num_test // (2 if split == "test" else 20)
        steps = self.horizon + (self.num_auxiliary if train else 0)
        low, high = self.frequency_range
        draws = torch.rand(2, count, generator=generator, dtype=torch.float64)
        frequency = low + (high - low) * draws[0]
        phase = 2 * math.pi * self.phase_turns * draws[1]
        normal = partial(_normal, self.window + steps)
        input_generator = passed(generator, count, normal)
        if self.covariate_effect:  # the first step's input lies before the window
            first = torch.randn(count, generator=generator, dtype=torch.float64)
        x = torch.empty(count, self.window, self.in_features)
        y = torch.empty(count, steps, dtype=x.dtype if train else torch.float64)
        for rows in blocks(count):
            clean = self._clean(frequency[rows], phase[rows], self.window + steps)
            if self.covariate_effect:
                inputs = normal(len(clean), input_generator)
                clean += self.covariate_effect * torch.nn.functional.pad(inputs, (1, -1))
                clean[:, 0] += self.covariate_effect * first[rows]
                x[rows, :, 1] = inputs[:, : self.window]
            noise = normal(len(clean), generator).mul_(self.noise_std)
            noisy = self.window + steps if train else self.window
            clean[:, :noisy] += noise[:, :noisy]
            x[rows, :, 0], y[rows] = clean[:, : self.window], clean[:, self.window :]
        if not train:
            x, y = x.repeat(2, 1, 1), y.repeat(2, 1)
            y += paired_noise(count, steps, self.noise_std, generator)
        return SeriesBatch(x, y.to(x.dtype))

    def _grid(self) -> tuple[Tensor, Tensor]:
        """Midpoints of the prior's (frequency, phase), each ``(G,)``."""
        low, high = self.frequency_range
        num_frequencies, num_phases = (1, 2048) if low == high else (161, 181)
        frequency = low + (high - low) * (torch.arange(num_frequencies) + 0.5) / num_frequencies
        phase = 2 * math.pi * self.phase_turns * (torch.arange(num_phases) + 0.5) / num_phases
        grid = torch.cartesian_prod(frequency.double(), phase.double())
        return grid[:, 0], grid[:, 1]

    @cached_property
    def floors(self) -> Floors:
        """Errors of three predictors per step ahead."""
        grid = self._clean(*self._grid(), self.window + self.horizon)
        unseen = torch.full((self.horizon,), self.noise_std**2, dtype=torch.float64)
        unseen[1:] += self.covariate_effect**2  # the input behind step T + 1 is in the window
        return Floors(
            bayes=self._posterior_variance(grid) + unseen,
            linear=self._linear_error(grid),
            persistence=self._persistence_error(grid),
        )

    def _posterior_variance(self, grid: Tensor) -> Tensor:
        """Expected posterior variance of the sine per step ahead, ``(H,)``."""
        variance = torch.full((self.window,), self.noise_std**2, dtype=torch.float64)
        variance[0] += self.covariate_effect**2
        generator = self.generator("floors")
        num_windows = 40_000 if len(grid) < 10_000 else 10_000
        rows = torch.randint(len(grid), (num_windows,), generator=generator)
        past, future = grid[:, : self.window], grid[:, self.window :]
        noise = torch.randn(len(rows), self.window, generator=generator, dtype=torch.float64)
        windows = past[rows] + noise * variance.sqrt()
        moments = torch.cat([future, future.square()], dim=1)
        norms = (past.square() / variance).sum(1)
        total = torch.zeros(self.horizon, dtype=torch.float64)
        for chunk in torch.split(windows, max(1, _CHUNK // len(grid))):
            log_likelihood = torch.addmm(-0.5 * norms, chunk / variance, past.T)
            mean, square = (log_likelihood.softmax(1) @ moments).chunk(2, dim=1)
            total += (square - mean.square()).sum(0)
        return total / len(windows)

    def _linear_error(self, grid: Tensor) -> Tensor:
        """Error of the best linear predictor, from the prior's exact moments, ``(H,)``."""
        extra = self.noise_std**2 + self.covariate_effect**2
        centered = grid - grid.mean(0)
        covariance = centered.T @ centered / len(grid)
        covariance.diagonal().add_(extra)
        past, cross = (
            covariance[: self.window, : self.window],
            covariance[: self.window, self.window :],
        )
        explained: Tensor = (cross * torch.linalg.solve(past, cross)).sum(0)
        return covariance.diagonal()[self.window :] - explained

    def _persistence_error(self, grid: Tensor) -> Tensor:
        """Error of the last observed value, ``(H,)``."""
        extra = self.noise_std**2 + self.covariate_effect**2
        distance: Tensor = grid[:, self.window :] - grid[:, self.window - 1 : self.window]
        return distance.square().mean(0) + 2 * extra

    @cached_property
    def density_floors(self) -> dict[str, float]:
        r"""Expected scores of the exact posterior predictive density, averaged over the horizon.

        With its distribution function F and its mean m, the continuous ranked probability score of
        a density that is right is :math:`\int F (1 - F)`, and the pinball loss at its quantile q is
        :math:`\tau (m - q) + \int_{-\infty}^q F`, averaged over the levels of the quantile heads.
        Clean values are put on a fine grid first, split between the two nearest points.
        """
        frequency, phase = self._grid()
        grid = self._clean(frequency, phase, self.window + self.horizon)
        past, future = grid[:, : self.window], grid[:, self.window :]
        generator = self.generator("density")
        count = max(4000 // self.horizon, 200)
        rows = torch.randint(len(grid), (count,), generator=generator)
        variance = torch.full((self.window,), self.noise_std**2, dtype=torch.float64)
        variance[0] += self.covariate_effect**2
        noise = torch.randn(count, self.window, generator=generator, dtype=torch.float64)
        windows = past[rows] + noise * variance.sqrt()
        scores = torch.zeros(2, dtype=torch.float64)
        for chunk in torch.split(windows, 1000):
            log_likelihood = (chunk / variance) @ past.T - 0.5 * (past.square() / variance).sum(1)
            weights = log_likelihood.softmax(1)
            for step in range(self.horizon):
                extra = self.covariate_effect**2 if step else 0.0
                std = math.sqrt(self.noise_std**2 + extra)
                scores += _density_scores(weights, future[:, step], std)
        pinball, crps = (scores / (count * self.horizon)).tolist()
        return {"pinball": pinball, "crps": crps}

    @property
    def optimum(self) -> dict[str, Reference]:
        """Error of the posterior mean and scores of the posterior, averaged over the horizon."""
        value = self.floors.bayes.mean().item()
        found = {"test/mse": Reference(value, "posterior mean of the sine given the window")}
        how = "posterior predictive density given the window"
        for name, score in self.density_floors.items():
            found[f"test/{name}"] = Reference(score, how)
        return found

    @property
    def baseline(self) -> dict[str, Reference]:
        """Error of the best linear predictor of the series alone."""
        linear, persistence = self.floors.linear.mean(), self.floors.persistence.mean()
        how = f"best linear predictor of the series alone; the last value costs {persistence:.4g}"
        return {"test/mse": Reference(linear.item(), how)}


def _normal(columns: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, columns, generator=generator, dtype=torch.float64)


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
