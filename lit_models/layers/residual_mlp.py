r"""A residual perceptron that a step embedding conditions: the denoiser of vectors.

.. math:: h \leftarrow h + W_2 \,\mathrm{silu}(W_1 h + P\,\mathrm{silu}(e))

Shape letters: B batch, D numbers in a sample, W width.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualMLP(nn.Module):
    """Noise in a vector.

    Args:
        num_features: Numbers D in a sample.
        hidden_size: Width W of the network and of the step embedding.
        num_blocks: Number of residual blocks.

    Shape:
        Input ``(B, ...)`` and embedding ``(B, W)`` or ``(1, W)``, output as the input.

    Example:
        >>> import torch
        >>> ResidualMLP(2, 16, num_blocks=1)(torch.zeros(8, 2), torch.zeros(1, 16)).shape
        torch.Size([8, 2])
    """

    def __init__(self, num_features: int, hidden_size: int, num_blocks: int) -> None:
        super().__init__()
        self.inner = nn.Linear(num_features, hidden_size)
        self.first = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
        self.second = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
        self.condition = nn.Linear(hidden_size, num_blocks * hidden_size)
        self.outer = nn.Linear(hidden_size, num_features)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Output of the network."""
        h = self.inner(x.flatten(1))
        shifts = self.condition(F.silu(embedding)).chunk(len(self.first), dim=-1)
        for first, second, shift in zip(self.first, self.second, shifts, strict=True):
            h = h + second(F.silu(first(h) + shift))
        out: Tensor = self.outer(h)
        return out.view_as(x)
