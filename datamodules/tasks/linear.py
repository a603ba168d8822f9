r"""Linear regression :math:`y = a + b^T x + \sigma\varepsilon` with standard normal features.

The irreducible error is :math:`\sigma^2`. Least squares on n rows of p features costs
:math:`\sigma^2 (1 + 1/n)(n - 2)/(n - p - 2)` on average; on the rows at hand its exact cost is
:attr:`LinearDataModule.ols_mse`.
"""

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.laws.noise import paired_noise


class LinearDataModule(LitDataModule[SupervisedBatch]):
    r"""Rows of a noisy linear function.

    Validation and test inputs are whitened and their noise comes in pairs, so that their mean
    squared error is the population's, :math:`\sigma^2 + |\hat b - b|^2 + (\hat a - a)^2`.

    Args:
        num_samples: Training rows.
        in_features: Number p of features.
        noise_std: Standard deviation :math:`\sigma` of the noise, in units of y.
        num_test: Rows of the validation and of the test set.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        num_samples: int = 100,
        in_features: int = 2,
        noise_std: float = 0.1,
        num_test: int = 20_000,
        batch_size: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=20_000)
        if in_features < 1:
            raise InputError(f"in_features must be at least 1, got {in_features}")
        if num_samples <= in_features:
            raise InputError(
                f"num_samples must exceed in_features={in_features}, got {num_samples}"
            )
        if noise_std < 0:
            raise InputError(f"noise_std must not be negative, got {noise_std}")
        if num_test < 2 * (in_features + 2):
            raise InputError(f"num_test must be at least {2 * (in_features + 2)}, got {num_test}")
        self.num_samples = num_samples
        self.in_features = in_features
        self.noise_std = noise_std
        self.num_test = num_test

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return self.num_samples

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Slope b, ``(p,)``, and intercept a, ``()``, each uniform on [0, 1)."""
        generator = self.generator("coefficients")
        values = torch.rand(self.in_features + 1, generator=generator, dtype=torch.float64)
        return values[:-1], values[-1]

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split."""
        generator = self.generator(split)
        slope, intercept = self.coefficients()
        if split == "train":
            shape = (self.num_samples, self.in_features)
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            noise = torch.randn(self.num_samples, 1, generator=generator, dtype=torch.float64)
            noise *= self.noise_std
        else:
            x = whitened(self.num_test // 2, self.in_features, generator).repeat(2, 1)
            noise = paired_noise(self.num_test // 2, 1, self.noise_std, generator)
        y = intercept + x @ slope.unsqueeze(1) + noise
        dtype = torch.get_default_dtype()
        return SupervisedBatch(x.to(dtype), y.to(dtype))

    def ols(self) -> Tensor:
        """Least-squares coefficients on the training rows: p slopes, then the intercept."""
        train = self.split("train")
        x = torch.cat([train.x.double(), torch.ones(len(train.x), 1, dtype=torch.float64)], dim=1)
        solution: Tensor = torch.linalg.lstsq(x, train.y.double(), driver="gelsd").solution
        return solution.squeeze(1)

    @property
    def ols_mse(self) -> float:
        """Population mean squared error of least squares on the same training rows."""
        truth = torch.cat([self.coefficients()[0], self.coefficients()[1].reshape(1)])
        return self.noise_std**2 + (self.ols() - truth).square().sum().item()

    @property
    def optimum(self) -> dict[str, Reference]:
        """The noise variance."""
        how = f"noise variance; least squares on the same rows reaches {self.ols_mse:.6g}"
        return {"test/mse": Reference(self.noise_std**2, how)}

    @property
    def baseline(self) -> dict[str, Reference]:
        """The variance of y."""
        variance = self.coefficients()[0].square().sum().item() + self.noise_std**2
        return {"test/mse": Reference(variance, "variance of y, what the mean as prediction costs")}


def whitened(num_rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Normal rows whose sample mean is exactly 0 and sample covariance exactly the identity."""
    x = torch.randn(num_rows, columns, generator=generator, dtype=torch.float64)
    x -= x.mean(0)
    factor = torch.linalg.cholesky(x.T @ x / num_rows)
    white: Tensor = torch.linalg.solve_triangular(factor, x.T, upper=False)
    return white.T
