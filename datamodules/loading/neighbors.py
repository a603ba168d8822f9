r"""Sampled neighbourhoods of a large graph, drawn by torch alone.

A batch is some target nodes, of each at most so many neighbours, of each of those again, one number
per layer (Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", 2017).
A node with d neighbours, of which k are wanted, has them parted into k stretches of nearly equal
length, and one is drawn from each: all are different, and a sampled edge stands for the length of
its stretch (``multiplicity``), which makes sums unbiased. Where :math:`d \le k` all are taken, so
that wide samples give the whole graph's numbers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.loading.loader import TensorLoader
from datamodules.seeds import seed_of

ALL = -1  # of all neighbours


class Neighborhood(NamedTuple):
    """A part of a graph around some nodes.

    Attributes:
        nodes: Numbers of its nodes in the graph, ``(n,)``, the nodes asked for first.
        edge_index: Source and target among them, ``(2, m)``.
        edges: Numbers of its edges in the graph, ``(m,)``.
        multiplicity: How many edges each stands for, ``(m,)`` long.
    """

    nodes: Tensor
    edge_index: Tensor
    edges: Tensor
    multiplicity: Tensor


class NeighborSampler:
    """The incoming edges of each node, and samples of them; a self-loop is always taken.

    Args:
        edge_index: Source and target of each edge, ``(2, E)``.
        num_nodes: Number N of nodes.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self.num_nodes, self.source = num_nodes, edge_index[0]
        is_loop = edge_index[0] == edge_index[1]
        self.loop = torch.full((num_nodes,), -1)
        loops = is_loop.nonzero()[:, 0]
        self.loop[edge_index[0, loops]] = loops
        target = edge_index[1]
        if len(loops):
            target = target.masked_fill(is_loop, num_nodes)
        self.order = target.argsort(stable=True)
        counts = torch.bincount(target, minlength=num_nodes)[:num_nodes]
        self.starts = F.pad(counts.cumsum(0), (1, 0))
        self._place = torch.full((num_nodes,), -1)

    def sample(
        self, nodes: Tensor, num_neighbors: Sequence[int], generator: torch.Generator
    ) -> Neighborhood:
        """A neighbourhood of distinct nodes.

        Args:
            nodes: The nodes, ``(S,)``.
            num_neighbors: Neighbours of a node at most, hop by hop; -1 for all.
            generator: Source of randomness.
        """
        place, frontier, found = self._place, nodes, [nodes]
        place[nodes] = torch.arange(len(nodes))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        count = len(nodes)
        for most in num_neighbors:
            edges, owner, times = self._drawn(frontier, most, generator)
            source = self.source[edges]
            new = torch.unique(source[place[source] < 0])
            place[new] = torch.arange(count, count + len(new))
            count += len(new)
            ends = torch.stack([place[source], place[frontier][owner]])
            parts.append((ends, edges, times))
            found.append(new)
            frontier = new
        every = torch.cat(found)
        place[every] = -1
        ends, edges, times = (torch.cat(list(p), dim=-1) for p in zip(*parts, strict=True))
        return Neighborhood(every, ends, edges, times)

    def _drawn(
        self, frontier: Tensor, most: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edges into some nodes, the node of each, and how many edges each stands for."""
        start = self.starts[frontier]
        degree = self.starts[frontier + 1] - start
        wanted = degree if most == ALL else degree.clamp(max=most)
        owner = torch.repeat_interleave(torch.arange(len(frontier)), wanted)
        slot = torch.arange(len(owner)) - (wanted.cumsum(0) - wanted)[owner]
        first = slot * degree[owner] // wanted[owner]
        times = (slot + 1) * degree[owner] // wanted[owner] - first
        drawn = torch.randint(2**62, (len(owner),), generator=generator) % times
        edges = self.order[start[owner] + first + drawn]
        loops = self.loop[frontier]
        own = (loops >= 0).nonzero()[:, 0]
        return (
            torch.cat([edges, loops[own]]),
            torch.cat([owner, own]),
            torch.cat([times, torch.ones_like(own)]),
        )


def share_of(whole: Neighborhood, num_hops: int, mine: Tensor) -> Neighborhood:
    """What some of the nodes asked for need of a neighbourhood.

    Args:
        whole: The neighbourhood of all.
        num_hops: Its number of hops.
        mine: Places of the nodes among those asked for, ``(S,)``.
    """
    source, target = whole.edge_index
    reached = torch.zeros(len(whole.nodes), dtype=torch.bool)
    reached[mine] = True
    kept = reached[target]
    for _ in range(num_hops):
        kept = reached[target]
        reached[source[kept]] = True
    rest = reached.clone()
    rest[mine] = False
    order = torch.cat([mine, rest.nonzero()[:, 0]])
    place = torch.empty(len(reached), dtype=torch.long)
    place[order] = torch.arange(len(order))
    return Neighborhood(
        whole.nodes[order],
        place[whole.edge_index[:, kept]],
        whole.edges[kept],
        whole.multiplicity[kept],
    )


class _Nodes(NamedTuple):
    nodes: Tensor


class NeighborLoader(TensorLoader[_Nodes]):
    """Batches of target nodes of one graph with sampled neighbourhoods.

    The sample of a batch is a pure function of ``(seed, epoch, batch)``: every rank draws that of
    the whole batch and takes what its own targets need.

    Args:
        data: The graph; its scored nodes are the targets.
        num_neighbors: Neighbours of a node at most, hop by hop; -1 for all.
        batch_size: Targets per batch, over all ranks.
        options: Those of :class:`TensorLoader`.

    Raises:
        InputError: If a process would have no target.
    """

    def __init__(
        self, data: GraphBatch, num_neighbors: Sequence[int], batch_size: int, **options: Any
    ) -> None:
        targets = data.mask.nonzero()[:, 0]
        if len(targets) < options["world_size"]:
            raise InputError(
                f"{len(targets)} scored targets cannot feed {options['world_size']} devices"
            )
        super().__init__(_Nodes(targets), batch_size, **options)
        self.graph, self.num_neighbors, self.seed = data, list(num_neighbors), options["seed"]
        self.sampler_of_neighbors = NeighborSampler(data.edge_index, data.x.shape[0])
        self.degree = _degree(data, self.sampler_of_neighbors.loop)

    def fetch(self, order: Tensor, batch_idx: int) -> Any:
        """This rank's targets of a batch, with what they need of its neighbourhood."""
        rows = order[batch_idx * self.batch_size : (batch_idx + 1) * self.batch_size]
        seed = seed_of(self.seed, self.sampler.epoch, batch_idx)
        generator = torch.Generator().manual_seed(seed)
        part = self.sampler_of_neighbors.sample(
            self.data.nodes[rows], self.num_neighbors, generator
        )
        count = len(rows)
        if self.world_size > 1:
            mine = torch.arange(self.rank, count, self.world_size)
            part, count = share_of(part, len(self.num_neighbors), mine), len(mine)
        data = self.graph
        return GraphBatch(
            x=_rows(data.x, part.nodes),
            edge_index=part.edge_index,
            edge_weight=None if data.edge_weight is None else data.edge_weight[part.edges],
            y=data.y[part.nodes],
            mask=torch.arange(len(part.nodes)) < count,
            edge_attr=None if data.edge_attr is None else data.edge_attr[part.edges],
            multiplicity=part.multiplicity.to(torch.get_default_dtype()),
            degree=self.degree[part.nodes],
        )


def _degree(data: GraphBatch, loop: Tensor) -> Tensor:
    """Weight of all edges into each node, and 1 for a node without a self-loop."""
    target, weight = data.edge_index[1], data.edge_weight
    if weight is None:
        degree = torch.bincount(target, minlength=len(loop)).to(torch.get_default_dtype())
    else:
        degree = weight.new_zeros(len(loop)).index_add(0, target, weight)
    return degree + (loop < 0)


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of dense or sparse features."""
    if x.layout != torch.sparse_csr:
        return x[rows]
    starts = x.crow_indices()
    counts = starts[rows + 1] - starts[rows]
    ends = counts.cumsum(0)
    owner = torch.repeat_interleave(torch.arange(len(rows)), counts)
    entries = torch.arange(len(owner)) - (ends - counts)[owner] + starts[rows][owner]
    return torch.sparse_csr_tensor(
        F.pad(ends, (1, 0)),
        x.col_indices()[entries],
        x.values()[entries],
        (len(rows), x.shape[1]),
        check_invariants=False,
    )


def check_num_neighbors(num_neighbors: Sequence[int] | None) -> list[int] | None:
    """The numbers as a list.

    Raises:
        InputError: If one is neither positive nor -1.
    """
    if num_neighbors is None:
        return None
    found = list(num_neighbors)
    if not found or any(number != ALL and number < 1 for number in found):
        raise InputError(
            f"num_neighbors must be positive, or {ALL} for all, one per layer; got {found}"
        )
    return found
