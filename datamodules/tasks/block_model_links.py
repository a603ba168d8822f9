r"""Link prediction in the block model, with the exact probability of every candidate.

A share of a graph's edges is hidden and as many pairs without an edge are drawn; both appear in the
graph as candidates, edges of weight 0 that carry no message, and the task is to tell them apart.
Given the observed edges and features, nodes have posteriors :math:`b_i`, by belief propagation; a
candidate is an edge with

.. math::
    \mathrm{odds}_{ij} = \frac{1}{\bar c} \sum_{z, z'} b_i(z) \, c(z, z') \, b_j(z'),
    \qquad \bar c = \frac{1}{K^2} \sum_{z, z'} c(z, z')

since hidden edges join classes in proportion to :math:`c`, other pairs (sparse graph) evenly, and
two nodes without a path of short length between them are independent.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.graph_base import Level, block_diagonal
from datamodules.laws.belief_propagation import fixed_point, sweeps
from datamodules.tasks.block_model import (
    BlockModel,
    StochasticBlockModelDataModule,
)


class BlockModelLinksDataModule(StochasticBlockModelDataModule):
    """Candidate edges of block-model graphs: hidden edges, and pairs without one.

    Args:
        num_nodes: Number n of nodes of a graph.
        num_blocks: Number K of classes.
        degree_in: :math:`c_{in}`, n times the probability of an edge within a block.
        degree_out: :math:`c_{out}`, n times the probability of an edge across blocks.
        feature_shift: Distance of a class mean of the features from the origin.
        hidden_fraction: Share of a graph's edges that are hidden.
        num_graphs: Training graphs.
        num_val_graphs: Validation graphs.
        num_test_graphs: Test graphs.
        depth: Sweeps of the belief propagation that is the optimum; None for convergence.
        batch_size: Graphs per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    predicts_links = True

    def __init__(
        self,
        num_nodes: int = 1000,
        num_blocks: int = 2,
        degree_in: float = 15.0,
        degree_out: float = 1.0,
        feature_shift: float = 1.0,
        hidden_fraction: float = 0.2,
        num_graphs: int = 20,
        num_val_graphs: int = 5,
        num_test_graphs: int = 15,
        depth: int | None = None,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_nodes=num_nodes,
            num_blocks=num_blocks,
            degree_in=degree_in,
            degree_out=degree_out,
            feature_shift=feature_shift,
            num_graphs=num_graphs,
            num_val_graphs=num_val_graphs,
            num_test_graphs=num_test_graphs,
            depth=depth,
            batch_size=batch_size,
            seed=seed,
        )
        if not 0 < hidden_fraction < 1:
            raise InputError(f"hidden_fraction must lie in (0, 1), got {hidden_fraction}")
        self.hidden_fraction = hidden_fraction

    @property
    def level(self) -> Level:
        """A target belongs to an edge."""
        return "edge"

    @property
    def num_classes(self) -> int:
        """An edge, or none."""
        return 2

    @property
    def num_train(self) -> int:
        """Number of training candidates."""
        return int(self.split("train").mask.sum())

    def make_split(self, split: Split) -> GraphBatch:
        """Graphs of one split."""
        rng = self.rng(split)
        graphs = []
        for _ in range(self._counts[split]):
            graph = self.draw(rng)
            count = graph.pairs.shape[1]
            order = torch.from_numpy(rng.permutation(count))
            hidden = graph.pairs[:, order[: round(self.hidden_fraction * count)]]
            observed = graph.pairs[:, order[round(self.hidden_fraction * count) :]]
            absent = self._absent_pairs(graph, hidden.shape[1], rng)
            graphs.append(_candidates(graph, observed, hidden, absent))
        return block_diagonal(graphs)

    def _absent_pairs(self, graph: BlockModel, count: int, rng: np.random.Generator) -> Tensor:
        """Distinct pairs without an edge, ``(2, count)``."""
        n = self.num_nodes
        joined = set((graph.pairs[0] * n + graph.pairs[1]).tolist())
        found: dict[int, None] = {}
        while len(found) < count:
            first, second = np.sort(rng.choice(n, 2, replace=False)).tolist()
            if first * n + second not in joined:
                found[first * n + second] = None
        keys = torch.tensor(list(found), dtype=torch.long)
        return torch.stack([keys // n, keys % n])

    @cached_property
    def _probabilities(self) -> dict[int | None, Tensor]:
        """Probability that each test candidate is an edge, by depth of the propagation."""
        test = self.split("test")
        assert test.graph is not None
        assert test.edge_weight is not None
        observed = test.edge_index[:, test.edge_weight > 0]
        beliefs = list(
            fixed_point(sweeps(observed, self.log_evidence(test.x), self.affinity, test.graph))
        )
        source, target = test.edge_index[:, test.mask]
        found: dict[int | None, Tensor] = {}
        for depth in (0, self.depth):
            belief = beliefs[-1 if depth is None else min(depth, len(beliefs) - 1)]
            odds = ((belief[source] @ self.affinity) * belief[target]).sum(1)
            odds = odds / self.affinity.mean()
            found[depth] = odds / (1 + odds)
        return found

    def _references(self, depth: int | None, how: str) -> dict[str, Reference]:
        test = self.split("test")
        y, probability = test.y[test.mask].double(), self._probabilities[depth]
        accuracy = ((probability > 0.5) == (y > 0.5)).double().mean().item()
        losses = torch.nn.functional.binary_cross_entropy(probability, y)
        return {
            "test/accuracy": Reference(accuracy, how),
            "test/cross_entropy": Reference(losses.item(), how),
        }

    @property
    def optimum(self) -> dict[str, Reference]:
        """Exact probabilities given the observed edges and the features."""
        what = "converged" if self.depth is None else f"of depth {self.depth}"
        return self._references(self.depth, f"belief propagation {what} on the observed edges")

    @property
    def baseline(self) -> dict[str, Reference]:
        """Exact probabilities given the two nodes' features alone."""
        return self._references(0, "features of the two nodes alone")


def _candidates(graph: BlockModel, observed: Tensor, hidden: Tensor, absent: Tensor) -> GraphBatch:
    """Observed edges of weight 1 and candidates of weight 0, of which one direction is scored."""
    edges = [observed, observed.flip(0), hidden, absent, hidden.flip(0), absent.flip(0)]
    sizes = torch.tensor([part.shape[1] for part in edges])
    part = torch.repeat_interleave(torch.arange(6), sizes)
    return GraphBatch(
        x=graph.x,
        edge_index=torch.cat(edges, dim=1),
        edge_weight=(part < 2).to(graph.x.dtype),
        y=((part == 2) | (part == 4)).long(),
        mask=(part == 2) | (part == 3),
        multiplicity=(part < 2).to(graph.x.dtype),
    )
