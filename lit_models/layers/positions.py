r"""Fixed position codes.

.. math:: PE_{p, 2i} = \sin(p / 10000^{2i/D}), \qquad PE_{p, 2i+1} = \cos(p / 10000^{2i/D})

Vaswani et al., "Attention Is All You Need" (2017).

Shape letters: T positions, D width.
"""

import torch
from torch import Tensor, nn


class SinusoidalPositions(nn.Module):
    """Fixed position codes.

    Shape:
        Output ``(T, D)`` for T positions from ``start``.
    """

    table: Tensor

    def __init__(self, d_model: int, max_length: int) -> None:
        super().__init__()
        position = torch.arange(max_length, dtype=torch.float64).unsqueeze(1)
        rate = 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
        table = torch.zeros(max_length, d_model, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate)[:, : d_model // 2]
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, length: int, start: int = 0) -> Tensor:
        """Codes of consecutive positions."""
        if start + length > len(self.table):
            raise ValueError(
                f"position {start + length - 1} lies beyond max_length={len(self.table)}"
            )
        return self.table[start : start + length]
