r"""Gaussians and mixtures of Gaussians, whose diffusion has an exact answer.

The evaluation rows of a law in one dimension are its quantiles at the middles of equal shares, in
random order: the Wasserstein distance of samples to these rows is that to the law, without the
noise of a second sample. See :mod:`datamodules.laws.mixture_law` for the exact noise prediction.
"""

import math
from functools import cached_property

import torch

from datamodules.base import Reference, Split
from datamodules.batches import SampleBatch
from datamodules.errors import InputError
from datamodules.laws.mixture_law import MixtureLaw
from datamodules.samples import SampleDataModule

_DIRECTIONS = 64


class GaussianMixtureDataModule(SampleDataModule):
    """Samples of a mixture of round Gaussians in any number of dimensions.

    Args:
        weights: Shares of the components; they sum to 1.
        means: Mean of each component, one number per dimension.
        stds: Standard deviation of each component, the same in every dimension.
        num_samples: Training rows.
        num_test: Rows of the test set, and samples drawn to compare with it; validation has a
            tenth of it.
        num_generated: Samples that `predict` draws.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        weights: list[float] = [0.3, 0.7],  # noqa: B006 - never changed; shown by --help
        means: list[list[float]] = [[-1.5], [1.0]],  # noqa: B006
        stds: list[float] = [0.25, 0.4],  # noqa: B006
        num_samples: int = 1_000_000,
        num_test: int = 20_000,
        num_generated: int = 10_000,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(num_generated, batch_size, eval_batch_size=2000, seed=seed)
        if num_samples < 1 or num_test < 10:
            raise InputError(
                f"num_samples must be at least 1 and num_test at least 10, got {num_samples} and "
                f"{num_test}"
            )
        _check_components(weights, means, stds)
        self.weights, self.means, self.stds = weights, means, stds
        self.num_samples, self.num_test = num_samples, num_test

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Number of dimensions, as a shape."""
        return (len(self.means[0]),)

    @cached_property
    def law(self) -> MixtureLaw:
        """The mixture."""
        means = torch.tensor(self.means, dtype=torch.float64)
        stds = torch.tensor(self.stds, dtype=torch.float64)[:, None].expand_as(means)
        return MixtureLaw(torch.tensor(self.weights, dtype=torch.float64), means, stds)

    def make_split(self, split: Split) -> SampleBatch:
        """Rows of one split."""
        if split == "predict":
            return self.blank_rows()
        generator = self.generator(split)
        count = {"train": self.num_samples, "val": self.num_test // 10}.get(split, self.num_test)
        dtype = torch.get_default_dtype()
        if split == "train" or self.sample_shape != (1,):
            return SampleBatch(self.law.sample(count, generator, dtype))
        x0 = self.law.quantiles(count)[torch.randperm(count, generator=generator), None]
        return SampleBatch(x0.to(dtype))

    @cached_property
    def optimum(self) -> dict[str, Reference]:
        """No error of the noise prediction; true samples' own distance."""
        exact = Reference(0.0, "expected noise given the noised sample, exactly")
        n = self.num_test
        if self.sample_shape == (1,):
            how = f"expected distance of {n:,} independent true samples"
            distance = Reference(self.law.wasserstein_noise(n), how)
            return {"test/eps_mse": exact, "test/wasserstein": distance}
        # Two independent sets of n samples differ by sqrt(2) of what one differs from the law.
        shape = (_DIRECTIONS, *self.sample_shape)
        directions = torch.randn(shape, generator=self.generator("directions")).double()
        directions /= directions.norm(dim=1, keepdim=True)
        noise = sum(self.law.projected(u).wasserstein_noise(n) for u in directions) / _DIRECTIONS
        how = f"expected distance of two independent sets of {n:,} true samples"
        distance = Reference(math.sqrt(2) * noise, how)
        return {"test/eps_mse": exact, "test/sliced_wasserstein": distance}

    @cached_property
    def baseline(self) -> dict[str, Reference]:
        """Distance of a Gaussian with the mixture's mean and standard deviation."""
        if self.sample_shape != (1,):
            return {}
        gaussian = MixtureLaw(
            torch.ones(1, dtype=torch.float64), self.law.mean[None], self.law.std[None]
        )
        value = self.law.wasserstein(gaussian.quantiles(self.num_test))
        return {"test/wasserstein": Reference(value, "the Gaussian of the same mean and variance")}


class GaussianDataModule(GaussianMixtureDataModule):
    """Samples of one Gaussian in one dimension.

    Args:
        mean: Mean.
        std: Standard deviation.
        num_samples: Training rows.
        num_test: Rows of the test set, and samples drawn to compare with it; validation has a
            tenth of it.
        num_generated: Samples that `predict` draws.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        mean: float = 3.0,
        std: float = 2.0,
        num_samples: int = 1_000_000,
        num_test: int = 20_000,
        num_generated: int = 10_000,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(
            [1.0], [[mean]], [std], num_samples, num_test, num_generated, batch_size, seed
        )

    @cached_property
    def baseline(self) -> dict[str, Reference]:
        """Distance of the noise that sampling starts from."""
        one, zero = (torch.full((1, 1), v, dtype=torch.float64) for v in (1.0, 0.0))
        noise = MixtureLaw(one[0], zero, one)
        value = self.law.wasserstein(noise.quantiles(self.num_test))
        return {"test/wasserstein": Reference(value, "standard normal noise, not denoised")}


def _check_components(weights: list[float], means: list[list[float]], stds: list[float]) -> None:
    if not len(weights) == len(means) == len(stds) > 0:
        raise InputError(
            f"weights, means and stds need one entry per component, got {len(weights)}, "
            f"{len(means)} and {len(stds)}"
        )
    if min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6:
        raise InputError(f"weights must be positive and sum to 1, got {weights}")
    if len({len(mean) for mean in means}) > 1 or not means[0]:
        raise InputError(f"means must have the same number of dimensions, got {means}")
    for std in stds:
        if std <= 0:
            raise InputError(f"a standard deviation must be positive, got {std:g}")
