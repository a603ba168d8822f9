"""Test noise that lets a score be read exactly."""

import torch
from torch import Tensor


def paired_noise(num_pairs: int, columns: int, std: float, generator: torch.Generator) -> Tensor:
    r"""Noise in pairs of opposite sign whose mean square is exactly :math:`\sigma^2` per column.

    If rows i and i + num_pairs have the same input, the squared error of any predictor over such a
    test set is :math:`\sigma^2` plus the mean squared distance to the clean target: the noise term
    and its product with the model's error, which blur a score on ordinary noise, are constants.

    Args:
        num_pairs: Number of inputs.
        columns: Number of targets per input.
        std: Standard deviation :math:`\sigma`.
        generator: Source of randomness.

    Returns:
        Noise, ``(2 num_pairs, columns)``.
    """
    noise = torch.randn(num_pairs, columns, generator=generator, dtype=torch.float64)
    noise *= std / noise.square().mean(0).sqrt()
    return torch.cat([noise, -noise])
