r"""Graph attention network, and its second version.

.. math::
    \text{GAT:}\quad & e_{ij} = \mathrm{LeakyReLU}\left(a_{dst}^T W h_i + a_{src}^T W h_j\right)
    & \qquad
    \text{GATv2:}\quad & e_{ij} = a^T \mathrm{LeakyReLU}\left(W_{dst} h_i + W_{src} h_j\right) \\
    & \alpha_{ij} = \frac{\exp e_{ij}}{\sum_{k \in N(i) \cup \{i\}} \exp e_{ik}} &
    & h_i' = \Big\Vert_{\text{heads}} \; \sum_{j \in N(i) \cup \{i\}} \alpha_{ij} W h_j + b

Velickovic et al., "Graph Attention Networks" (2018); Brody, Alon and Yahav, "How Attentive are
Graph Attention Networks?" (2022): in the first, the order of a node's neighbours by attention is
the same for every node; in the second it may depend on the node. The layers are
torch-geometric's, fed with sparse features where the data are sparse, in little memory per edge
(:mod:`lit_models.layers.graph_attention`). Deviations:

* ``encoder_size`` puts a perceptron layer on each node's features before the first layer.
* ``skip`` adds a linear map of a node's own state to each layer, as the paper does on PPI alone.
* ``degree_input`` gives the encoder :math:`\ln(1 + \tilde d_i)` of a node as well: attention is a
  weighted mean, and a mean cannot count.
* ``weighted`` lets an edge of weight w count as w edges, :math:`\alpha_{ij} \propto w_{ij} \exp
  e_{ij}`, a node's own as 1. Without it attention does not read a graph's edge weights.

Shape letters: N nodes, E edges, F node features, H heads, W width of a head, K classes.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import GraphBatch
from lit_models.families.graph_task import LitGraphModel, Task, task_metrics
from lit_models.families.linear_share import LinearShare
from lit_models.layers.graph import FeatureDropout, FeatureLinear, LastResult, NodeEncoder
from lit_models.layers.graph_attention import (
    AttentionEdges,
    LeanGATConv,
    LeanGATv2Conv,
    attention_edges,
)
from lit_models.layers.standardize import Standardize

Attention = tuple[Tensor, Tensor]


def attention_layer(
    in_features: int,
    out_features: int,
    num_heads: int,
    concat: bool,
    dropout: float,
    v2: bool,
    skip: bool,
) -> Any:
    """One layer of torch-geometric that also takes sparse features.

    ``concat`` puts its heads side by side; else they are averaged. The other arguments are those of
    :class:`LitGAT`.
    """
    make = LeanGATv2Conv if v2 else LeanGATConv
    layer = make(
        in_features, out_features, num_heads, concat=concat, dropout=dropout, residual=skip
    )
    width = num_heads * out_features
    for name in ("lin_l", "lin_r") if v2 else ("lin",):
        setattr(layer, name, FeatureLinear(in_features, width, bias=v2))
    if skip:
        layer.res = FeatureLinear(in_features, width if concat else out_features)
    return layer


class GAT(nn.Module):
    """A stack of attention layers with dropout before each; arguments as for :class:`LitGAT`.

    Shape:
        Input ``(N, F)``, dense or sparse, and edges ``(2, E)``; output ``(N, out_features)``.

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> GAT(in_features=4, hidden_size=8, out_features=2)(torch.zeros(3, 4), edges)[0].shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        out_features: int,
        num_heads: int = 8,
        num_out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        v2: bool = False,
        skip: bool = False,
        encoder_size: int = 0,
        degree_input: bool = False,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        if min(hidden_size, num_heads, num_out_heads, num_layers) < 1:
            raise ValueError(
                "hidden_size, num_heads, num_out_heads and num_layers must be positive, got "
                f"{hidden_size}, {num_heads}, {num_out_heads} and {num_layers}"
            )
        if encoder_size < 0:
            raise ValueError(f"encoder_size must not be negative, got {encoder_size}")
        if degree_input and not encoder_size:
            raise ValueError("degree_input needs an encoder: set encoder_size, or it to false")
        self.weighted = weighted
        self.dropout = FeatureDropout(dropout)
        self.encoder = (
            NodeEncoder(in_features, encoder_size, degree_input) if encoder_size else None
        )
        width = encoder_size or in_features
        layers = []
        for _ in range(num_layers - 1):
            layers.append(attention_layer(width, hidden_size, num_heads, True, dropout, v2, skip))
            width = num_heads * hidden_size
        layers.append(attention_layer(width, out_features, num_out_heads, False, dropout, v2, skip))
        self.layers = nn.ModuleList(layers)
        self._last = LastResult()

    def edges(
        self,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        multiplicity: Tensor | None,
        num_nodes: int,
    ) -> AttentionEdges:
        """The edges, sorted, kept while the graph is the same."""

        def make() -> AttentionEdges:
            times = multiplicity
            if self.weighted and edge_weight is not None:
                times = edge_weight if times is None else times * edge_weight
            return attention_edges(edge_index, times, num_nodes)

        found: AttentionEdges = self._last.get(
            (edge_index, edge_weight, multiplicity), num_nodes, make
        )
        return found

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        multiplicity: Tensor | None = None,
        degree: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Attention]]:
        """Outputs, the states that the last layer reads, and each layer's edges and weights."""
        attention: list[Attention] = []
        edges = self.edges(edge_index, edge_weight, multiplicity, x.shape[0])
        if self.encoder is not None:
            x = F.elu(self.encoder(self.dropout(x), edge_index, edge_weight, degree))
        states = x
        layer: Any
        for index, layer in enumerate(self.layers):
            if index:
                states = x = F.elu(x)
            x, weights = layer.attention(self.dropout(x), edges)
            attention.append((edges.pairs(), weights))
        return x, states, attention


class LitGAT(LitGraphModel):
    """Classifies the nodes of graphs with a graph attention network.

    Args:
        in_features: Number F of node features.
        num_classes: Number K of classes, or of labels or numbers of a node.
        hidden_size: Width W of a head.
        num_heads: Number H of heads of the hidden layers.
        num_out_heads: Number of heads of the last layer, which averages them.
        num_layers: Number of layers: how far a node sees.
        dropout: Probability of dropping an input of a layer or an attention weight.
        v2: Whether the attention is the second version's, which can rank the neighbours of each
            node in an order of its own.
        skip: Whether to add a linear map of a node's own state to each layer.
        encoder_size: Width of a perceptron layer before the first attention layer; 0 for none.
        degree_input: Whether the logarithm of a node's degree enters the encoder too.
        weighted: Whether an edge of weight w counts as w edges; else attention reads no weights.
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
        hidden_size: int = 8,
        num_heads: int = 8,
        num_out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        v2: bool = False,
        skip: bool = False,
        encoder_size: int = 0,
        degree_input: bool = False,
        weighted: bool = False,
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
        self.net = GAT(
            in_features=in_features,
            hidden_size=hidden_size,
            out_features=num_classes,
            num_heads=num_heads,
            num_out_heads=num_out_heads,
            num_layers=num_layers,
            dropout=dropout,
            v2=v2,
            skip=skip,
            encoder_size=encoder_size,
            degree_input=degree_input,
            weighted=weighted,
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Logits, or numbers in the units of the data, ``(N, K)``."""
        out: Tensor = self.net(x, edge_index, edge_weight)[0]
        if self.linear is not None:
            out = self.linear(out, x)
        return self.y_scaler.inverse(out) if self.task == "regression" else out

    def embeddings(self, batch: GraphBatch) -> Tensor:
        """States of the last hidden layer, ``(N, H W)``."""
        return self._run(batch)[1]

    def attention_weights(self, batch: GraphBatch) -> list[Attention]:
        """Edges ``(2, E + N)``, self-loops included, and weights ``(E + N, H)`` of each layer."""
        return self._run(batch)[2]

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Logits, or standardised numbers, of all nodes."""
        return self._run(batch)[0]

    def _run(self, batch: GraphBatch) -> tuple[Tensor, Tensor, list[Attention]]:
        found: tuple[Tensor, Tensor, list[Attention]] = self.net(
            batch.x, batch.edge_index, batch.edge_weight, batch.multiplicity, batch.degree
        )
        return found
