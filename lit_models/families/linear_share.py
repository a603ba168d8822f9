"""A linear model of a target's own features beside a network on the graph, weighed by validation.

The network is trained alone; after each epoch the share that the linear model has in the scores is
the best of eleven on the validation targets, so that there no mixture is worse than either (as in
Breiman, "Stacked Regressions", 1996). On a graph whose edges tell nothing, the features remain.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from datamodules.batches import GraphBatch
from lit_models.layers.feature_regression import FeatureRegression, Task
from lit_models.layers.standardize import widest_float

Level = Literal["node", "edge", "graph"]
_SHARES = 11
_MAX_NUMBERS = 40_000_000  # rows times features that the linear model is solved on
_MAX_ROWS = 20_000


class LinearShare(nn.Module):
    """A linear model, and its share in the scores.

    Args:
        in_features: Number F of node features.
        out_features: Number K of scores.
        level: What a target belongs to. A graph has the means and sums of its nodes' features and
            its numbers of nodes and edges; an edge its own features, and the products and distances
            of those of its two nodes.
        edge_features: Number A of features of an edge.
    """

    share: Tensor

    def __init__(
        self, in_features: int, out_features: int, level: Level = "node", edge_features: int = 0
    ) -> None:
        super().__init__()
        self.level = level
        width = {
            "node": in_features,
            "edge": edge_features + 2 * in_features,
            "graph": 2 * in_features + 2,
        }[level]
        self.model = FeatureRegression(width, out_features)
        self.register_buffer("share", torch.zeros(()))

    def features(self, batch: GraphBatch) -> Tensor:
        """Features of all targets, ``(M, .)``."""
        x, count = batch.x, batch.num_graphs
        if self.level == "node":
            return x
        if self.level == "edge":
            first, second = x[batch.edge_index[0]], x[batch.edge_index[1]]
            own = [] if batch.edge_attr is None else [batch.edge_attr.to(x)]
            return torch.cat([*own, first * second, (first - second).abs()], dim=1)
        graph = batch.graph if batch.graph is not None else x.new_zeros(len(x), dtype=torch.long)
        sums = scatter(x, graph, 0, count, "sum")
        nodes = torch.bincount(graph, minlength=count).to(x).unsqueeze(1)
        edges = torch.bincount(graph[batch.edge_index[0]], minlength=count).to(x).unsqueeze(1)
        return torch.cat([sums / nodes.clamp(min=1), sums, nodes, edges], dim=1)

    def fit(self, batches: Iterable[GraphBatch], task: Task, scale: nn.Module | None) -> None:
        """Solves the linear model on the scored targets of some batches.

        Args:
            batches: Training batches.
            task: What a target is.
            scale: Standardises the targets where they are numbers.
        """
        xs, ys, rows = [], [], 0
        for batch in batches:
            x = self.features(batch)
            most = min(_MAX_ROWS, _MAX_NUMBERS // x.shape[1])
            if rows >= most:
                break
            found = (x.to_dense() if x.layout != torch.strided else x)[batch.mask][: most - rows]
            xs.append(found)
            ys.append(batch.y[batch.mask][: len(found)])
            rows += len(found)
        y = torch.cat(ys)
        self.model.fit(torch.cat(xs), y if scale is None else scale(y), task)

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        """Scores ``(M, K)`` of the network with the linear model's share."""
        mixed: Tensor = scores + self.share.to(scores.dtype) * (self.model(features) - scores)
        return mixed

    @torch.no_grad()
    def choose(
        self,
        kept: Iterable[tuple[Tensor, Tensor, Tensor]],
        loss_of: Callable[[Tensor, Tensor], tuple[Tensor, int | Tensor]],
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        """Takes the best share on validation targets; of equal ones the least.

        Args:
            kept: Scores of the network, of the linear model, and the targets.
            loss_of: Mean loss of scores and its number of targets.
            sum_over_ranks: Adds up what the processes have.
        """
        dtype = widest_float(self.share.device)
        sums = torch.zeros(_SHARES, dtype=dtype, device=self.share.device)
        for scores, linear, target in kept:
            for index in range(_SHARES):
                share = index / (_SHARES - 1)
                loss, count = loss_of(scores + share * (linear - scores), target)
                sums[index] += loss.to(dtype) * count
        self.share.fill_(float(sum_over_ranks(sums).argmin()) / (_SHARES - 1))
