"""Standardisation by the training set, carried inside the model and its checkpoint."""

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    r"""Maps :math:`x` to :math:`(x - \mu) / \sigma` and back.

    A model that holds the scale of its training data takes and returns values in the units of the
    user's file, and predicts correctly on a file it has never seen. The datamodule publishes mean
    and standard deviation of the training rows; without one the map is the identity.

    Args:
        num_features: Size D of the last dimension.

    Shape:
        Input and output ``(*, D)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Values in units of the training set's standard deviation."""
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Values in the units of the data."""
        return z * self.std + self.mean
