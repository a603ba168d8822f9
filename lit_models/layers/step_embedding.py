r"""Embedding of a diffusion step and, where there are classes, of the class to generate.

Two families of time features, each beside its cosines:

* ``sinusoidal``: :math:`\sin(t / 10000^{2i/F})`, Vaswani et al. (2017), as in DDPM;
* ``fourier``: :math:`\sin(\pi k t / T), \; k = 1 \ldots F/2`, the same functions of t / T at
  any T.

Shape letters: B batch, F time features, W width, K classes.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

TimeFeatures = Literal["fourier", "sinusoidal"]


class StepEmbedding(nn.Module):
    """Time features through two layers, plus a learned vector per class.

    Args:
        num_steps: Number T of steps of the process.
        hidden_size: Width W of the embedding.
        time_features: Family of the time features.
        num_features: Number F of time features.
        num_classes: Number K of classes; 0 leaves them out.

    Raises:
        ValueError: If the number of features is odd.

    Shape:
        Steps ``(B,)`` and classes ``(B,)``, each below K + 1 where K stands for no class, to
        ``(B, W)``.
    """

    frequencies: Tensor

    def __init__(
        self,
        num_steps: int,
        hidden_size: int,
        time_features: TimeFeatures = "fourier",
        num_features: int = 32,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if num_features < 2 or num_features % 2:
            raise ValueError(
                f"num_time_features must be even: sines and cosines, got {num_features}"
            )
        half = torch.arange(num_features // 2)
        if time_features == "fourier":
            frequencies = math.pi * (half + 1) / num_steps
        else:
            frequencies = 10_000.0 ** (-2 * half / num_features)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(num_features, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.classes = nn.Embedding(num_classes + 1, hidden_size) if num_classes else None

    def forward(self, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Embedding of steps and classes."""
        angles = t.to(self.frequencies.dtype).unsqueeze(-1) * self.frequencies
        embedding: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        if self.classes is not None and y is not None:
            embedding = embedding + self.classes(y)
        return embedding
