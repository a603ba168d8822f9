"""Noisy sine windows with the exact Bayes forecast, see :mod:`datamodules.laws.sine_law`."""

import math
from functools import partial

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SeriesBatch
from datamodules.errors import InputError, at_least
from datamodules.laws.draws import blocks, passed
from datamodules.laws.noise import paired_noise
from datamodules.laws.sine_law import DensityFloors, Floors, SineLaw, density_floors, error_floors
from datamodules.seeds import split_seed


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
        self.law = SineLaw(
            window, horizon, noise_std, period, (low, high), phase_turns, covariate_effect
        )

    @property
    def in_features(self) -> int:
        """Number of input series."""
        return 2 if self.covariate_effect else 1

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return self.num_samples

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
            clean = self.law.clean(frequency[rows], phase[rows], self.window + steps)
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

    @property
    def floors(self) -> Floors:
        """Errors of three predictors per step ahead."""
        return error_floors(self.law, split_seed(self.seed, "floors"))

    @property
    def density_floors(self) -> DensityFloors:
        """Scores of the exact posterior predictive density, averaged over the horizon."""
        return density_floors(self.law, split_seed(self.seed, "density"))

    @property
    def optimum(self) -> dict[str, Reference]:
        """Error of the posterior mean and scores of the posterior, averaged over the horizon."""
        value = self.floors.bayes.mean().item()
        found = {"test/mse": Reference(value, "posterior mean of the sine given the window")}
        how = "posterior predictive density given the window"
        for name, score in self.density_floors._asdict().items():
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
