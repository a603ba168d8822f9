r"""Graph convolutions in time: inside a recurrent cell, or between causal convolutions.

.. math::
    \Theta \star X &= \sum_{k=0}^{K} \hat A^k X W_k + b \\
    \text{gru:}\quad z, r &= \sigma(\Theta_{zr} \star [x_t, h_{t-1}]), \quad
        n = \tanh(\Theta_n \star [x_t, r \odot h_{t-1}]), \quad
        h_t = z \odot h_{t-1} + (1 - z) \odot n \\
    \text{conv:}\quad \Gamma X &= (P X) \odot \sigma(Q X) \;\text{(causal in time)}, \qquad
        h = \Gamma_2\, \mathrm{ReLU}(\Theta \star \Gamma_1 X)

The papers are those of :mod:`lit_models.stgnn`. States are kept node first, so that a power of
:math:`\hat A` is one sparse product for all windows and features. Shape letters: B batch, T window,
N nodes, F node features, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_models.layers.graph import Adjacency


class GraphPolynomial(nn.Module):
    r"""Graph convolution :math:`\sum_k \hat A^k X W_k + b`.

    Args:
        in_features: Width of a node's input.
        out_features: Width of a node's output.
        num_hops: Largest power K; 0 leaves the graph out.

    Shape:
        Input ``(N, *, in_features)``, output ``(N, *, out_features)``.
    """

    def __init__(self, in_features: int, out_features: int, num_hops: int = 1) -> None:
        super().__init__()
        self.num_hops = num_hops
        self.lin = nn.Linear((num_hops + 1) * in_features, out_features)

    def forward(self, x: Tensor, adjacency: Adjacency) -> Tensor:
        """Convolved input."""
        hops = [x]
        for _ in range(self.num_hops):
            hops.append(adjacency.matmul(hops[-1].flatten(1)).view_as(x))
        out: Tensor = self.lin(torch.cat(hops, dim=-1))
        return out


class GraphGRUCell(nn.Module):
    """A GRU whose maps are graph convolutions.

    Args:
        in_features: Width of a node's input.
        hidden_size: Width W of a node's state.
        num_hops: Largest power of the adjacency.

    Shape:
        Input ``(N, B, in_features)``, state ``(N, B, W)``.
    """

    def __init__(self, in_features: int, hidden_size: int, num_hops: int = 1) -> None:
        super().__init__()
        self.gates = GraphPolynomial(in_features + hidden_size, 2 * hidden_size, num_hops)
        self.candidate = GraphPolynomial(in_features + hidden_size, hidden_size, num_hops)

    def forward(self, x: Tensor, h: Tensor, adjacency: Adjacency) -> Tensor:
        """Next state."""
        gates = self.gates(torch.cat([x, h], dim=-1), adjacency).sigmoid()
        update, reset = gates.chunk(2, dim=-1)
        candidate = self.candidate(torch.cat([x, reset * h], dim=-1), adjacency).tanh()
        after: Tensor = update * h + (1 - update) * candidate
        return after


class RecurrentEncoder(nn.Module):
    """Reads a window with one graph GRU after another.

    Args:
        in_features: Number F of node features.
        hidden_size: Width W of a node's state.
        num_layers: Number of cells.
        num_hops: Largest power of the adjacency.

    Shape:
        Window ``(N, B, T, F)`` to ``(N, B, W)``.
    """

    def __init__(self, in_features: int, hidden_size: int, num_layers: int, num_hops: int) -> None:
        super().__init__()
        sizes = [in_features] + [hidden_size] * (num_layers - 1)
        self.cells = nn.ModuleList(GraphGRUCell(size, hidden_size, num_hops) for size in sizes)
        self.hidden_size = hidden_size

    def forward(self, window: Tensor, adjacency: Adjacency) -> tuple[Tensor, list[Tensor]]:
        """Summary of the window, and the cells' states to continue from."""
        states = [window.new_zeros(*window.shape[:2], self.hidden_size) for _ in self.cells]
        for x in window.unbind(2):
            states = self.advance(x, states, adjacency)
        return states[-1], states

    def advance(self, x: Tensor, states: list[Tensor], adjacency: Adjacency) -> list[Tensor]:
        """States after one more step."""
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            x = cell(x, state, adjacency)
            after.append(x)
        return after


class GatedTemporalConv(nn.Module):
    """Causal convolution in time with a gated linear unit.

    Args:
        in_features: Width of a node's input.
        out_features: Width of a node's output.
        kernel_size: Steps that an output sees.

    Shape:
        Input ``(N, B, T, in_features)``, output ``(N, B, T, out_features)``.
    """

    def __init__(self, in_features: int, out_features: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.lin = nn.Linear(kernel_size * in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Convolved input."""
        padded = F.pad(x, (0, 0, self.kernel_size - 1, 0))
        steps = padded.unfold(2, self.kernel_size, 1).flatten(-2)
        return F.glu(self.lin(steps))


class ConvolutionalEncoder(nn.Module):
    """Reads a window with blocks of temporal, graph and temporal convolution.

    Args:
        in_features: Number F of node features.
        hidden_size: Width W of a node's state.
        num_layers: Number of blocks.
        num_hops: Largest power of the adjacency.
        kernel_size: Steps that a temporal convolution sees.

    Shape:
        Window ``(N, B, T, F)`` to ``(N, B, W)``.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        num_layers: int,
        num_hops: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        sizes = [in_features] + [hidden_size] * (num_layers - 1)
        self.before = nn.ModuleList(
            GatedTemporalConv(size, hidden_size, kernel_size) for size in sizes
        )
        self.space = nn.ModuleList(
            GraphPolynomial(hidden_size, hidden_size, num_hops) for _ in sizes
        )
        self.after = nn.ModuleList(
            GatedTemporalConv(hidden_size, hidden_size, kernel_size) for _ in sizes
        )

    def forward(self, window: Tensor, adjacency: Adjacency) -> tuple[Tensor, list[Tensor]]:
        """Summary of the window; there is no state to continue from."""
        x = window
        for before, space, after in zip(self.before, self.space, self.after, strict=True):
            x = after(F.relu(space(before(x), adjacency)))
        return x[:, :, -1], []
