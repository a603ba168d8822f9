r"""A noisy sine as a regression task: :math:`y = \sin x + \sigma\varepsilon` on a few points.

No predictive density beats the truth's own: the optimum is the entropy of the noise,
:math:`\tfrac12 \log(2 \pi e \sigma^2)` nats. What a finite sample allows lies above it.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.laws.noise import paired_noise


class NoisySineRegressionDataModule(LitDataModule[SupervisedBatch]):
    r"""Points of a noisy sine on an even grid.

    Validation and test inputs are fresh, spread evenly over the same interval, and their noise
    comes in pairs of opposite sign (see :func:`~datamodules.laws.noise.paired_noise`). Outside the
    interval there are no data: there a model should say that it does not know.

    Args:
        num_samples: Training points.
        noise_std: Standard deviation :math:`\sigma` of the noise, in units of y.
        x_max: The inputs lie in [-x_max, x_max].
        num_test: Points of the test set; validation has a tenth of it.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    in_features = 1
    out_features = 1

    def __init__(
        self,
        num_samples: int = 100,
        noise_std: float = 0.2,
        x_max: float = 3.0,
        num_test: int = 20_000,
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=2000)
        for name, value, least in (("num_samples", num_samples, 2), ("num_test", num_test, 20)):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        for name, positive in (("noise_std", noise_std), ("x_max", x_max)):
            if positive <= 0:
                raise InputError(f"{name} must be positive, got {positive}")
        self.num_samples, self.num_test = num_samples, num_test
        self.noise_std, self.x_max = noise_std, x_max

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return self.num_samples

    def clean(self, x: Tensor) -> Tensor:
        """Target without noise."""
        return torch.sin(x)

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split."""
        generator = self.generator(split)
        if split == "train":
            x = torch.linspace(-self.x_max, self.x_max, self.num_samples, dtype=torch.float64)
            noise = torch.randn(self.num_samples, 1, generator=generator, dtype=torch.float64)
            noise *= self.noise_std
        else:
            pairs = self.num_test // (2 if split == "test" else 20)
            place = torch.rand(pairs, generator=generator, dtype=torch.float64)
            x = self.x_max * (2 * (torch.arange(pairs) + place) / pairs - 1)
            x = x.repeat(2)
            noise = paired_noise(pairs, 1, self.noise_std, generator)
        y = self.clean(x).unsqueeze(1) + noise
        dtype = torch.get_default_dtype()
        return SupervisedBatch(x.unsqueeze(1).to(dtype), y.to(dtype))

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of the training points, as a user's table has them."""
        train = self.split("train")
        fields = (("x_scaler", train.x.double()), ("y_scaler", train.y.double()))
        return {name: (field.mean(0), field.std(0, correction=0)) for name, field in fields}

    @property
    def optimum(self) -> dict[str, Reference]:
        """Scores of the true density."""
        how = f"true density: sine with noise {self.noise_std:g}"
        return {
            "test/nll": Reference(_gaussian_entropy(self.noise_std), how),
            "test/rmse": Reference(self.noise_std, how),
            "test/mse": Reference(self.noise_std**2, how),
            "test/crps": Reference(self.noise_std / math.sqrt(math.pi), how),
        }

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of the normal density with mean and variance of y, whatever x is."""
        # The sine has mean 0 and mean square (1 - sinc) / 2 on a symmetric interval.
        mean_square = 0.5 - math.sin(2 * self.x_max) / (4 * self.x_max)
        std = math.sqrt(mean_square + self.noise_std**2)
        how = "normal density with mean and variance of y"
        return {
            "test/nll": Reference(_gaussian_entropy(std), how),
            "test/rmse": Reference(std, how),
            "test/mse": Reference(std**2, how),
        }


def _gaussian_entropy(std: float) -> float:
    """Entropy of a normal density, in nats."""
    return 0.5 * math.log(2 * math.pi * math.e * std**2)
