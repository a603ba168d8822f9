r"""Stochastic block model with features, and the exact accuracy of belief propagation.

Each node has a class :math:`y_i` uniform on K blocks and features :math:`x_i \sim N(\mu e_{y_i},
I_K)`. Two nodes are joined with probability :math:`c_{in}/n` within a block and :math:`c_{out}/n`
across; the mean degree is :math:`c = (c_{in} + (K-1) c_{out})/K`. Blocks are detectable without
features where :math:`(c_{in} - c_{out})^2 > K^2 c` (Decelle et al., 2011).

The best possible accuracy is that of the posterior, which belief propagation computes
(:mod:`datamodules.laws.belief_propagation`); after t sweeps it bounds all networks of t layers.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError, at_least
from datamodules.graph_base import GraphsDataModule, block_diagonal
from datamodules.laws.belief_propagation import fixed_point, sweeps
from datamodules.loading.neighbors import check_num_neighbors
from datamodules.seeds import split_seed

_SHOWN_DEPTHS = (1, 2, 3, 4)


class Score(NamedTuple):
    """Scores of a posterior on the test nodes.

    Attributes:
        accuracy: Share of nodes whose most probable class is the true one.
        cross_entropy: Mean negative log-probability of the true class, in nats.
    """

    accuracy: float
    cross_entropy: float


class BlockModel(NamedTuple):
    """One draw of the model.

    Attributes:
        x: Features, ``(N, K)``.
        y: Classes, ``(N,)``.
        pairs: Joined nodes, the smaller first, ``(2, E/2)``.
    """

    x: Tensor
    y: Tensor
    pairs: Tensor


def both_directions(pairs: Tensor) -> Tensor:
    """Edges of an undirected graph in both directions, ``(2, E)``."""
    return torch.cat([pairs, pairs.flip(0)], dim=1)


def draw_pairs(classes: Tensor, affinity: Tensor, rng: np.random.Generator) -> Tensor:
    """Joins each pair of nodes independently with probability ``affinity / n``.

    Args:
        classes: Class of each node, ``(N,)``.
        affinity: n times the probability of an edge between two classes, ``(K, K)``.
        rng: Source of randomness.

    Returns:
        Joined nodes, the smaller first, ``(2, pairs)``.
    """
    n = len(classes)
    highest = affinity.max().item() / n
    # Pairs at the highest probability, thinned: linear in the edges, not in the n^2 / 2 pairs.
    count = rng.binomial(n * (n - 1) // 2, highest)
    number = np.sort(rng.choice(n * (n - 1) // 2, count, replace=False, shuffle=False))
    second = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > number  # the root may round up to the next integer
    pairs = torch.from_numpy(np.stack([number - second * (second - 1) // 2, second]))
    probability = affinity[classes[pairs[0]], classes[pairs[1]]] / (n * highest)
    return pairs[:, torch.from_numpy(rng.random(count)) < probability]


class StochasticBlockModelDataModule(GraphsDataModule):
    r"""Classes of nodes from features and edges.

    Inductive by default: labelled training graphs, and others for validation and test. With
    ``label_fraction`` transductive: one graph, in which the class of some nodes is known.

    Args:
        num_nodes: Number n of nodes of a graph.
        num_blocks: Number K of classes.
        degree_in: :math:`c_{in}`, n times the probability of an edge within a block.
        degree_out: :math:`c_{out}`, n times the probability of an edge across blocks.
        feature_shift: Distance :math:`\mu` of a class mean from the origin, in standard deviations.
        num_graphs: Training graphs.
        num_val_graphs: Validation graphs.
        num_test_graphs: Test graphs.
        label_fraction: Share of the nodes of the one graph whose class is known; half as many
            validate and the rest are the test. None for whole graphs.
        depth: Sweeps of the belief propagation that is the optimum; give the number of layers for
            the best that a network of that depth can do. None for the posterior given everything.
        batch_size: Graphs per optimizer step; with ``num_neighbors``, nodes.
        seed: Seed of the data.
        num_neighbors: Neighbours of a node that training samples at most, one number per layer, -1
            for all; None for whole graphs. Evaluation sees all of them.
        passes: Optimizer steps of an epoch on one graph that is whole in each step.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        num_nodes: int = 1000,
        num_blocks: int = 2,
        degree_in: float = 12.0,
        degree_out: float = 4.0,
        feature_shift: float = 1.0,
        num_graphs: int = 20,
        num_val_graphs: int = 5,
        num_test_graphs: int = 25,
        label_fraction: float | None = None,
        depth: int | None = None,
        batch_size: int = 1,
        seed: int = 0,
        num_neighbors: list[int] | None = None,
        passes: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=5)
        at_least(
            num_graphs=(num_graphs, 1),
            num_val_graphs=(num_val_graphs, 1),
            num_test_graphs=(num_test_graphs, 1),
            num_blocks=(num_blocks, 2),
            num_nodes=(num_nodes, 2 * num_blocks),
            depth=(depth, 0),
            passes=(passes, 1),
        )
        for name, degree in (("degree_in", degree_in), ("degree_out", degree_out)):
            if not 0 < degree < num_nodes:
                raise InputError(
                    f"{name} must lie between 0 and num_nodes={num_nodes}, got {degree}"
                )
        if label_fraction is not None:
            if not 0 < label_fraction <= 0.5:
                raise InputError(f"label_fraction must lie in (0, 0.5], got {label_fraction}")
            if num_graphs != 1:
                raise InputError(
                    f"label_fraction={label_fraction} asks for one graph with some labels, but "
                    f"num_graphs is {num_graphs}; give num_graphs=1"
                )
        self.num_nodes, self.num_blocks = num_nodes, num_blocks
        self.degree_in, self.degree_out = degree_in, degree_out
        self.feature_shift, self.label_fraction, self.depth = feature_shift, label_fraction, depth
        self.num_neighbors, self.passes = check_num_neighbors(num_neighbors), passes
        self._counts = {"train": num_graphs, "val": num_val_graphs, "test": num_test_graphs}

    @property
    def in_features(self) -> int:
        """Number of node features."""
        return self.num_blocks

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.num_blocks

    @property
    def out_features(self) -> int:
        """Number of scores per target."""
        return self.num_classes

    @property
    def num_train(self) -> int:
        """Number of labelled training nodes."""
        return int(self.split("train").mask.sum())

    @cached_property
    def affinity(self) -> Tensor:
        """N times the probability of an edge between two classes, ``(K, K)``."""
        across = torch.full((self.num_blocks, self.num_blocks), self.degree_out)
        return (across + (self.degree_in - self.degree_out) * torch.eye(self.num_blocks)).double()

    def draw(self, rng: np.random.Generator) -> BlockModel:
        """One graph."""
        y = torch.from_numpy(rng.integers(self.num_blocks, size=self.num_nodes))
        noise = torch.from_numpy(rng.standard_normal((self.num_nodes, self.num_blocks)))
        x = noise + self.feature_shift * F.one_hot(y, self.num_blocks)
        pairs = draw_pairs(y, self.affinity, rng)
        return BlockModel(x.to(torch.get_default_dtype()), y, pairs)

    def rng(self, split: str) -> np.random.Generator:
        """Random generator of one split's own."""
        return np.random.default_rng(split_seed(self.seed, split))

    def make_split(self, split: Split) -> GraphBatch:
        """Graphs of one split; the one graph with the split's nodes scored where transductive."""
        if self.label_fraction is not None:
            return self._whole(split)
        rng = self.rng(split)
        draws = [self.draw(rng) for _ in range(self._counts[split])]
        return block_diagonal([_labelled(graph) for graph in draws])

    @cached_property
    def _drawn(self) -> tuple[GraphBatch, Tensor]:
        """The one graph, and its nodes in random order."""
        rng = self.rng("graph")
        graph = _labelled(self.draw(rng))
        return graph, torch.from_numpy(rng.permutation(self.num_nodes))

    def _whole(self, split: Split) -> GraphBatch:
        graph, order = self._drawn
        known = round(float(self.label_fraction or 0) * self.num_nodes)
        ends = {"train": (0, known), "val": (known, known + known // 2)}
        start, end = ends.get(split, (known + known // 2, self.num_nodes))
        mask = torch.zeros(self.num_nodes, dtype=torch.bool).index_fill(0, order[start:end], True)
        missing = set(range(self.num_blocks)) - set(graph.y[mask].tolist())
        if split == "train" and missing:
            raise InputError(
                f"no training node of class {min(missing)} among {known}; raise label_fraction"
            )
        return graph._replace(mask=mask)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Log-likelihood of the classes given a node's own features, up to a constant."""
        return self.feature_shift * x.double()

    @cached_property
    def floors(self) -> dict[int | None, Score]:
        """Scores of belief propagation by depth on the test nodes; None stands for convergence."""
        test = self.split("test")
        evidence = self.log_evidence(test.x)
        if self.label_fraction is not None:
            train = self.split("train")
            known = F.one_hot(train.y[train.mask], self.num_blocks).bool()
            evidence[train.mask] = torch.zeros(known.shape).double().masked_fill(~known, -torch.inf)
        graph = torch.zeros(len(test.x), dtype=torch.long) if test.graph is None else test.graph
        beliefs = list(fixed_point(sweeps(test.edge_index, evidence, self.affinity, graph)))
        depths = sorted({0, *_SHOWN_DEPTHS} | ({self.depth} if self.depth else set()))
        found: dict[int | None, Score] = {
            depth: _score(beliefs[min(depth, len(beliefs) - 1)], test) for depth in depths
        }
        found[None] = _score(beliefs[-1], test)
        return found

    @property
    def optimum(self) -> dict[str, Reference]:
        """Belief propagation on the test graphs, at the depth asked for."""
        score = self.floors[self.depth]
        by_depth = ", ".join(f"{d}: {self.floors[d].accuracy:.4f}" for d in _SHOWN_DEPTHS)
        what = "converged" if self.depth is None else f"of depth {self.depth}"
        how = (
            f"belief propagation {what} on the test nodes (accuracy by depth {by_depth}, "
            f"converged {self.floors[None].accuracy:.4f})"
        )
        return {
            "test/accuracy": Reference(score.accuracy, how),
            "test/cross_entropy": Reference(score.cross_entropy, how),
        }

    @property
    def baseline(self) -> dict[str, Reference]:
        """Posterior given a node's own features."""
        score = self.floors[0]
        return {
            "test/accuracy": Reference(score.accuracy, "features alone"),
            "test/cross_entropy": Reference(score.cross_entropy, "features alone"),
        }


def _labelled(graph: BlockModel) -> GraphBatch:
    """A graph whose nodes are all scored."""
    every = torch.ones(len(graph.y), dtype=torch.bool)
    return GraphBatch(graph.x, both_directions(graph.pairs), None, graph.y, every)


def _score(belief: Tensor, test: GraphBatch) -> Score:
    belief, y = belief[test.mask], test.y[test.mask]
    accuracy = (belief.argmax(1) == y).double().mean().item()
    return Score(accuracy, -belief.gather(1, y[:, None]).log().mean().item())
