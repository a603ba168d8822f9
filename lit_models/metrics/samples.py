r"""Distances between two sets of samples, as metrics that are exact on any number of ranks.

Sliced Wasserstein: Rabin et al. (2011). MMD: Gretton et al. (2012), by the random features of
Rahimi and Recht (2007): with frequencies :math:`\omega_f \sim N(0, I / \ell^2)` the features
:math:`\phi(x) = F^{-1/2} [\cos \omega_f x, \sin \omega_f x]_f` have a kernel
:math:`\phi(x) \cdot \phi(y)` that tends to :math:`\exp(-|x - y|^2 / 2\ell^2)`, and the distance is
that of the mean features: a sum over samples, which adds up over ranks at linear cost.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_models.layers.standardize import widest_float


def wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """1-Wasserstein distance of each pair of columns.

    Args:
        x: Samples, ``(n, P)``.
        y: Samples, ``(m, P)``.

    Returns:
        Distances, ``(P,)``.
    """
    x, y = x.sort(0).values, y.sort(0).values
    if len(x) == len(y):
        return (x - y).abs().mean(0)
    # Both quantile functions are constant between the union of their jumps.
    n, m = len(x), len(y)
    jumps = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    widths = torch.diff(jumps, prepend=jumps.new_zeros(1)).to(x)
    rows_x, rows_y = ((jumps - 1) // m).to(x.device), ((jumps - 1) // n).to(x.device)
    return widths @ (x[rows_x] - y[rows_y]).abs() / (n * m)


class SlicedWasserstein(Metric):
    """1-Wasserstein distance of two sets of samples, averaged over directions.

    For samples of one number there is a single direction: the ordinary Wasserstein distance.

    Args:
        num_features: Numbers D in a sample.
        num_directions: Random directions, the same for every instance.
    """

    full_state_update = False
    higher_is_better = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, num_features: int, num_directions: int = 128) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (num_features, num_directions) if num_features > 1 else (1, 1)
        directions = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.directions = directions / directions.norm(dim=0)
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds samples.

        Args:
            preds: Generated samples, ``(B, ...)``.
            target: True samples, ``(B, ...)``.
        """
        # Projected, so that the state does not grow with the size of a sample.
        for state, samples in ((self.preds, preds), (self.target, target)):
            flat = samples.flatten(1).to(widest_float(samples.device))
            state.append(flat @ self.directions.to(flat))

    def compute(self) -> Tensor:
        """The distance, in the units of the samples."""
        return wasserstein(dim_zero_cat(self.preds), dim_zero_cat(self.target)).mean()


class MMD(Metric):
    r"""Maximum mean discrepancy under a kernel of random Fourier features.

    Args:
        num_features: Numbers D in a sample.
        length_scale: Length :math:`\ell` of the Gaussian kernel, in units of the samples times
            :math:`\sqrt D`.
        num_frequencies: Random frequencies F, the same for every instance.
    """

    full_state_update = False
    higher_is_better = False
    preds: Tensor
    target: Tensor
    num_preds: Tensor
    num_target: Tensor

    def __init__(
        self, num_features: int, length_scale: float = 1.0, num_frequencies: int = 256
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (num_features, num_frequencies)
        frequencies = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.frequencies = frequencies / (length_scale * math.sqrt(num_features))
        for name in ("preds", "target"):
            zeros = torch.zeros(2 * num_frequencies, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
            self.add_state(f"num_{name}", torch.tensor(0), dist_reduce_fx="sum")

    def features(self, samples: Tensor) -> Tensor:
        """Features whose scalar products are the kernel, ``(B, 2F)``."""
        frequencies = self.frequencies.to(samples.device, self.preds.dtype)
        angles = samples.flatten(1).to(self.preds.dtype) @ frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(angles.shape[1])

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds samples.

        Args:
            preds: Generated samples, ``(B, ...)``.
            target: True samples, ``(B, ...)``.
        """
        self.preds += self.features(preds).sum(0)
        self.target += self.features(target).sum(0)
        self.num_preds += len(preds)
        self.num_target += len(target)

    def compute(self) -> Tensor:
        """The distance of the mean features; 0 for equal sets, at most the square root of 2."""
        difference = self.preds / self.num_preds - self.target / self.num_target
        distance: Tensor = torch.linalg.vector_norm(difference)
        return distance
