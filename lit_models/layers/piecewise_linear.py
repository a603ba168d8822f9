"""Numbers in quantile bins: their encoding, vectors of it, and an additive map that moves slowly.

Piecewise-linear encoding: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep
Learning" (2022).

Shape letters: B batch, N numbers, T bins, E embedding, K outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Share of the rate at which an additive map moves.
_SLOW = 0.1


class PiecewiseLinearEmbedding(nn.Module):
    """Numbers as vectors: a line each, and one slope more per quantile bin.

    Args:
        num_numbers: Number N of numbers.
        num_bins: Number T of bins of each.
        embedding_dim: Size E of each vector.

    Shape:
        Input ``(B, N)`` and its code ``(B, N, T)``, output ``(B, N, E)``.
    """

    edges: Tensor

    def __init__(self, num_numbers: int, num_bins: int, embedding_dim: int) -> None:
        super().__init__()
        edges = torch.linspace(-2, 2, num_bins + 1).repeat(num_numbers, 1)
        self.register_buffer("edges", edges)
        scale = embedding_dim**-0.5
        self.slope = nn.Parameter(torch.empty(num_numbers, embedding_dim).uniform_(-1, 1) * scale)
        self.offset = nn.Parameter(torch.empty(num_numbers, embedding_dim).uniform_(-1, 1) * scale)
        self.bins = nn.Parameter(torch.zeros(num_numbers, num_bins, embedding_dim))

    def fit(self, values: Tensor) -> None:
        """Puts the bins' edges at quantiles of values ``(rows, N)``; equal edges make no bin."""
        levels = torch.linspace(0, 1, self.edges.shape[1], dtype=values.dtype)
        self.edges.copy_(torch.quantile(values[:100_000], levels, dim=0).T)

    def encode(self, x: Tensor) -> Tensor:
        """How far each value has passed through each bin, ``(B, N, T)``, in [0, 1]."""
        low, width = self.edges[:, :-1], self.edges.diff(dim=1)
        inverse = torch.where(width > 1e-6, 1 / width.clamp(min=1e-6), torch.zeros_like(width))
        return ((x.unsqueeze(-1) - low) * inverse).clamp(0, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Embeddings of numbers and their :meth:`encode`."""
        line = x.unsqueeze(-1) * self.slope + self.offset
        return line + torch.einsum("bnt,nte->bne", codes, self.bins)


class AdditivePath(nn.Module):
    """An affine map that starts at a given one, moves slowly and decays towards its start.

    Args:
        in_features: Size of each input.
        out_features: Size K of each output.
    """

    start_weight: Tensor
    start_bias: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("start_weight", torch.zeros(out_features, in_features))
        self.register_buffer("start_bias", torch.zeros(out_features))
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(B, K)``."""
        weight = self.start_weight + _SLOW * self.weight
        return F.linear(x, weight, self.start_bias + _SLOW * self.bias)
