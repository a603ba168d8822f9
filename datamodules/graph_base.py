"""What datamodules of graphs share: block-diagonal batches, their loader, one row per target."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.base import LitDataModule
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.loading.loader import EpochSampler, TensorLoader
from datamodules.loading.neighbors import NeighborLoader

Level = Literal["node", "edge", "graph"]
_MAX_STEPS = 10


def _joined(parts: Sequence[Any]) -> Tensor | None:
    return None if parts[0] is None else torch.cat(list(parts))


def block_diagonal(graphs: Sequence[GraphBatch]) -> GraphBatch:
    """Puts graphs side by side, without edges between them.

    Args:
        graphs: Single graphs, all with the same optional fields.

    Returns:
        One batch; targets and masks follow each other in the order of the graphs.
    """
    sizes = torch.tensor([len(graph.x) for graph in graphs])
    starts = (sizes.cumsum(0) - sizes).tolist()
    return GraphBatch(
        x=torch.cat([graph.x for graph in graphs]),
        edge_index=torch.cat(
            [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)], dim=1
        ),
        edge_weight=_joined([graph.edge_weight for graph in graphs]),
        y=torch.cat([graph.y for graph in graphs]),
        mask=torch.cat([graph.mask for graph in graphs]),
        graph=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        edge_attr=_joined([graph.edge_attr for graph in graphs]),
        num_graphs=len(graphs),
        multiplicity=_joined([graph.multiplicity for graph in graphs]),
    )


def _ranges(starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of several ranges one after the other, and the range each belongs to."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    before = sizes.cumsum(0) - sizes
    return torch.arange(int(sizes.sum())) + (starts - before)[owner], owner


def rows_per_node(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Forecasts ``(B, H, N)`` with a row per window and node, ``(B N, H)``."""
    return {name: values.transpose(1, 2).flatten(0, 1) for name, values in outputs.items()}


class _GraphNumbers(NamedTuple):
    graphs: Tensor


class GraphLoader:
    """Iterates over a set of graphs in block-diagonal batches.

    Several graphs are shared out like rows: ``batch_size`` counts the graphs of one optimizer step
    over all ranks, and rank r of R takes every R-th. A single graph needs no collation and goes
    whole to every rank, since messages cross any cut: there the ranks share its targets, so that
    each is scored once and metrics are those of one rank.

    Args:
        data: All graphs, block-diagonal, edges in the order of the graphs.
        level: What a target belongs to.
        batch_size: Graphs per batch, over all ranks.
        shuffle: Whether to reorder the graphs each epoch.
        seed: Seed of the order.
        drop_last: Whether to leave out a last batch that is not full.
        rank: Rank of this process.
        world_size: Number of processes.
        passes: Times that an epoch serves a single graph.

    Raises:
        InputError: If a rank would have nothing to score.
    """

    batch_sampler = None  # Lightning reads it on anything that has a ``sampler``

    def __init__(
        self,
        data: GraphBatch,
        level: Level,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        passes: int = 1,
    ) -> None:
        single = data.num_graphs == 1
        count = int(data.mask.sum()) if single else data.num_graphs
        if count < world_size and (single or shuffle):
            what = "scored targets" if single else "training graphs"
            raise InputError(f"{count} {what} cannot feed {world_size} devices")
        self.data, self.level = data, level
        self._order = TensorLoader(
            _GraphNumbers(torch.arange(passes if single else data.num_graphs)),
            1 if single else batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=0 if single else rank,
            world_size=1 if single else world_size,
        )
        graph = torch.zeros(len(data.x), dtype=torch.long) if data.graph is None else data.graph
        self._nodes = torch.bincount(graph, minlength=data.num_graphs)
        self._edges = torch.bincount(graph[data.edge_index[0]], minlength=data.num_graphs)
        self._targets = {
            "node": self._nodes,
            "edge": self._edges,
            "graph": torch.ones(data.num_graphs, dtype=torch.long),
        }[level]
        self._whole: GraphBatch | None = None
        if single:
            scored = data.mask.nonzero()[rank::world_size, 0]
            mask = torch.zeros_like(data.mask).index_fill_(0, scored, True)
            self._whole = data._replace(mask=mask)

    @property
    def sampler(self) -> EpochSampler:
        """Order of the graphs; Lightning tells it the epoch."""
        return self._order.sampler

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[GraphBatch]:
        for numbers in self._order:
            yield self.take(numbers.graphs)

    def _positions(self, sizes: Tensor, graphs: Tensor) -> tuple[Tensor, Tensor]:
        starts = sizes.cumsum(0) - sizes
        return _ranges(starts[graphs], sizes[graphs])

    def take(self, graphs: Tensor) -> GraphBatch:
        """The given graphs as a batch of their own."""
        if self._whole is not None:
            return self._whole
        data = self.data
        nodes, graph = self._positions(self._nodes, graphs)
        edges, edge_graph = self._positions(self._edges, graphs)
        targets, _ = self._positions(self._targets, graphs)
        sizes = self._nodes[graphs]
        old_starts = (self._nodes.cumsum(0) - self._nodes)[graphs]
        shift = (sizes.cumsum(0) - sizes) - old_starts
        return GraphBatch(
            x=data.x[nodes],
            edge_index=data.edge_index[:, edges] + shift[edge_graph],
            edge_weight=None if data.edge_weight is None else data.edge_weight[edges],
            y=data.y[targets],
            mask=data.mask[targets],
            graph=graph,
            edge_attr=None if data.edge_attr is None else data.edge_attr[edges],
            num_graphs=len(graphs),
            multiplicity=None if data.multiplicity is None else data.multiplicity[edges],
        )

    def rows(self, batch_idx: int) -> Tensor:
        """Numbers of the scored targets in this rank's share of batch ``batch_idx``."""
        if self._whole is not None:
            return self._whole.mask.nonzero()[:, 0]
        targets, _ = self._positions(self._targets, self._order.rows(batch_idx))
        return targets[self.data.mask[targets]]

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches already served."""
        return self._order.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the batches already served."""
        self._order.load_state_dict(state_dict)


class GraphsDataModule(LitDataModule[GraphBatch]):
    """Base of the datamodules whose splits are graphs; ``batch_size`` counts graphs.

    Under several ranks a split of one graph is whole on each of them (see :class:`GraphLoader`).

    Attributes:
        num_neighbors: Neighbours of a node that training samples at most, hop by hop; None for
            whole graphs. Evaluation sees all of them.
        predicts_links: Whether targets are edges that are hidden and pairs without one.
        passes: Optimizer steps of an epoch on a single graph that is whole in each.
    """

    passes = 1
    num_neighbors: list[int] | None = None
    predicts_links = False

    def setup(self, stage: str) -> None:
        """Makes the splits of a stage.

        Raises:
            InputError: If neighbours are to be sampled around targets that are no nodes.
        """
        if self.num_neighbors is not None and self.level != "node":
            raise InputError(
                f"num_neighbors samples around nodes, and a target is that of a {self.level}; "
                "leave it out"
            )
        super().setup(stage)

    @property
    def level(self) -> Level:
        """Whether a target belongs to a node, an edge or a graph."""
        return "node"

    @property
    def task(self) -> Literal["classification", "multilabel", "regression"]:
        """Whether a target is a class, several labels at once, or one or more numbers."""
        return "classification"

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight."""
        return 0

    def fitting_batches(self) -> Iterator[GraphBatch]:
        """Training batches to solve a linear model on, the same on every rank.

        Of one graph, whose steps may differ in what they show, ten; of several graphs an epoch.
        """
        options = {"shuffle": True, "drop_last": False, "rank": 0, "world_size": 1}
        data = self.split("train")
        loader = self._make_loader(data, self.batch_size, seed=self.seed, **options)
        yield from itertools.islice(loader, _MAX_STEPS if data.num_graphs == 1 else None)

    def _make_loader(self, data: GraphBatch, batch_size: int, **options: Any) -> Any:
        if options["shuffle"] and self.num_neighbors is not None:
            return NeighborLoader(data, self.num_neighbors, batch_size, **options)
        passes = self.passes if options["shuffle"] else 1
        return GraphLoader(data, self.level, batch_size, passes=passes, **options)
