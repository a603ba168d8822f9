r"""Graph convolutional network.

.. math::
    H^{(l+1)} = \mathrm{ReLU}\left(\tilde D^{-1/2} (A + I) \tilde D^{-1/2} H^{(l)} W^{(l)} + b^{(l)}
    \right), \qquad \text{the last layer without ReLU}

For one node, with :math:`\tilde d` the degrees of :math:`A + I`:

.. math::
    h_i^{(l+1)} = \mathrm{ReLU}\Big(\sum_{j \in N(i) \cup \{i\}}
    \frac{a_{ji}}{\sqrt{\tilde d_i \tilde d_j}} \, h_j^{(l)} W^{(l)} + b^{(l)}\Big)

Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017).
Deviations:

* ``encoder_size`` puts a perceptron layer on each node's features before the first convolution,
  and ``skip`` adds :math:`H^{(l)} V^{(l)}`, a node's own state with weights of its own. With both
  off the network is the paper's: a convolution is linear in what a neighbour sends, and weighs a
  node like one of its neighbours.
* ``degree_input`` gives the encoder :math:`\ln(1 + \tilde d_i)` as well: evidence grows with the
  number of neighbours, which the normalisation takes out.
* Weight decay is the optimizer's, on all layers; the paper's is on the first.

Shape letters: N nodes, E edges, F node features, W width, K classes.
"""

import itertools

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import GraphBatch
from lit_models.families.graph_task import LitGraphModel, Task, task_metrics
from lit_models.families.linear_share import LinearShare
from lit_models.layers.graph import (
    Adjacency,
    AdjacencyCache,
    FeatureDropout,
    FeatureLinear,
    NodeEncoder,
)
from lit_models.layers.standardize import Standardize


class GraphConvolution(nn.Module):
    r"""One convolution, :math:`\hat A H W + b`, and :math:`H V` where asked.

    Args:
        in_features: Width of :math:`H`.
        out_features: Width of the output.
        skip: Whether a node's own state also enters with weights of its own.

    Shape:
        Input ``(N, in_features)`` and the ``(N, N)`` matrix, output ``(N, out_features)``.
    """

    def __init__(self, in_features: int, out_features: int, skip: bool = False) -> None:
        super().__init__()
        self.lin = FeatureLinear(in_features, out_features)
        self.skip = FeatureLinear(in_features, out_features) if skip else None
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, adjacency: Adjacency) -> Tensor:
        """Convolved states."""
        out = adjacency.matmul(self.lin(x)) + self.bias
        return out if self.skip is None else out + self.skip(x)


class GCN(nn.Module):
    """A stack of convolutions with dropout before each; arguments as for :class:`LitGCN`.

    Shape:
        Input ``(N, F)``, dense or sparse, and edges ``(2, E)``; output ``(N, out_features)``.

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> GCN(in_features=4, hidden_size=8, out_features=2)(torch.zeros(3, 4), edges)[0].shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        out_features: int,
        num_layers: int = 2,
        dropout: float = 0.5,
        encoder_size: int = 0,
        skip: bool = False,
        cached: bool = True,
        degree_input: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size < 1 or num_layers < 1 or encoder_size < 0:
            raise ValueError(
                f"hidden_size and num_layers must be positive and encoder_size not negative, got "
                f"{hidden_size}, {num_layers} and {encoder_size}"
            )
        if degree_input and not encoder_size:
            raise ValueError("degree_input needs an encoder: set encoder_size, or it to false")
        self.dropout = FeatureDropout(dropout)
        self.encoder = (
            NodeEncoder(in_features, encoder_size, degree_input) if encoder_size else None
        )
        sizes = [encoder_size or in_features, *[hidden_size] * (num_layers - 1), out_features]
        self.convs = nn.ModuleList(
            GraphConvolution(*pair, skip=skip) for pair in itertools.pairwise(sizes)
        )
        self.adjacency = AdjacencyCache(cached=cached)

    def embed(self, x: Tensor, adjacency: Adjacency) -> Tensor:
        """States that the last convolution reads, ``(N, W)``."""
        for conv in self.convs[:-1]:
            x = F.relu(conv(self.dropout(x), adjacency))
        return x

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        multiplicity: Tensor | None = None,
        degree: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs ``(N, out_features)`` and the states that the last convolution reads."""
        if multiplicity is not None:  # an edge brings what those it stands for would
            edge_weight = multiplicity if edge_weight is None else edge_weight * multiplicity
        dtype = self.convs[0].bias.dtype
        adjacency = self.adjacency(edge_index, edge_weight, x.shape[0], dtype, degree)
        if self.encoder is not None:
            x = F.relu(self.encoder(self.dropout(x), edge_index, edge_weight, degree))
        states = self.embed(x, adjacency)
        return self.convs[-1](self.dropout(states), adjacency), states


class LitGCN(LitGraphModel):
    """Classifies the nodes of graphs with a graph convolutional network.

    Args:
        in_features: Number F of node features.
        num_classes: Number K of classes, or of labels or numbers of a node.
        hidden_size: Width W of the hidden layers.
        num_layers: Number of convolutions: how far a node sees.
        dropout: Probability of dropping an input of a layer.
        encoder_size: Width of a perceptron layer before the first convolution; 0 for none.
        skip: Whether a node's own state also enters each convolution with weights of its own.
        cached: Whether the normalised adjacency is kept while the graph stays the same.
        degree_input: Whether the logarithm of a node's degree enters the encoder too.
        task: Whether a node has a class, several labels at once, or one or more numbers.
        linear_model: Whether a linear model of a target's own features has a share of the scores,
            chosen on the validation targets.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If a size is not positive, or ``degree_input`` has no encoder.

    Shape:
        Input ``(N, F)``, dense or sparse CSR, and edges ``(2, E)``; output logits ``(N, K)``.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 16,
        num_layers: int = 2,
        dropout: float = 0.5,
        encoder_size: int = 0,
        skip: bool = False,
        cached: bool = True,
        degree_input: bool = False,
        task: Task = "classification",
        linear_model: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(task_metrics(task, num_classes), optimizer, lr_scheduler)
        self.task = task
        if task == "regression":
            self.y_scaler = Standardize(num_classes)
        if linear_model:
            self.linear = LinearShare(in_features, num_classes)
        self.net = GCN(
            in_features=in_features,
            hidden_size=hidden_size,
            out_features=num_classes,
            num_layers=num_layers,
            dropout=dropout,
            encoder_size=encoder_size,
            skip=skip,
            cached=cached,
            degree_input=degree_input,
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Logits, or numbers in the units of the data, ``(N, K)``."""
        out: Tensor = self.net(x, edge_index, edge_weight)[0]
        if self.linear is not None:
            out = self.linear(out, x)
        return self.y_scaler.inverse(out) if self.task == "regression" else out

    def embeddings(self, batch: GraphBatch) -> Tensor:
        """States of the last hidden layer, ``(N, W)``."""
        return self._run(batch)[1]

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Logits, or standardised numbers, of all nodes."""
        out: Tensor = self._run(batch)[0]
        return out

    def _run(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.net(
            batch.x, batch.edge_index, batch.edge_weight, batch.multiplicity, batch.degree
        )
        return found
