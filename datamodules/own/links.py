r"""Edges as pairs of nodes: which are hidden, which pairs have none, and what messages still carry.

A scored pair is a candidate: an edge of weight 0 and multiplicity 0, that a model reads and that
sends no message. An edge that is scored in a batch is no message of that batch, in neither
direction. Three numbers describe a candidate, all of the messages alone: the logarithm of one plus
its common neighbours, the index of Adamic and Adar (2003), :math:`\sum_k 1 / \log d_k` over them,
and the logarithm of one plus the product of the two degrees.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.files.graph_files import Edges
from datamodules.loading.loader import TensorLoader
from datamodules.own.graph_features import degree_features
from datamodules.seeds import seed_of

PAIR_FEATURES = 3
OLD_PAIR_FEATURES = 2  # of a run that does not say
_LISTED = 4_000_000  # so many pairs are written out; of more, absent ones are found by drawing


class Links(NamedTuple):
    """The edges of a graph, each once; an undirected one with the smaller node first.

    Attributes:
        ends: The two nodes, ``(2, M)``.
        weight: Weight of each edge, ``(M,)``, or None.
        attributes: Features of each edge, ``(M, A)``, or None.
        num_nodes: Number N of nodes.
        directed: Whether an edge leads one way.
        pair_features: How many numbers describe a candidate.
    """

    ends: Tensor
    weight: Tensor | None
    attributes: Tensor | None
    num_nodes: int
    directed: bool
    pair_features: int = PAIR_FEATURES

    def keys(self, pairs: Tensor) -> Tensor:
        """A number of each pair ``(2, P)``, the same for both orders where there are none."""
        first, second = pairs if self.directed else pairs.sort(0).values
        numbers: Tensor = first * self.num_nodes + second
        return numbers

    def among(self, pairs: Tensor) -> Tensor:
        """Which edges are among some pairs, ``(M,)``."""
        return torch.isin(self.keys(self.ends), self.keys(pairs))

    def absent(self, count: int, generator: torch.Generator, where: str) -> Tensor:
        """Distinct pairs of two nodes without an edge, ``(2, count)``.

        Raises:
            InputError: If there are fewer.
        """
        known = self.keys(self.ends).sort().values
        total = self.num_nodes * (self.num_nodes - 1) // (1 if self.directed else 2)
        joined = int((self.ends[0] != self.ends[1]).sum())
        if total - joined < count:
            raise InputError(
                f"{where} has {total - joined} pairs without an edge, and {count} are needed; "
                "hide fewer edges"
            )
        if self.num_nodes**2 <= _LISTED:
            free = self._allowed(torch.arange(self.num_nodes**2), known)
            found = free[torch.randperm(len(free), generator=generator)[:count]]
        else:
            found = known[:0]
            while len(found) < count:
                drawn = torch.randint(self.num_nodes**2, (2 * count,), generator=generator)
                found = torch.cat([found, self._allowed(drawn, known)])
                values, first = np.unique(found.numpy(), return_index=True)
                found = torch.from_numpy(values[np.argsort(first)])
            found = found[:count]
        return torch.stack([found // self.num_nodes, found % self.num_nodes])

    def _allowed(self, keys: Tensor, known: Tensor) -> Tensor:
        """The keys of pairs that are two nodes, in order, without an edge."""
        first, second = keys // self.num_nodes, keys % self.num_nodes
        keys = keys[first != second if self.directed else first < second]
        if len(known) == 0:
            return keys
        place = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
        return keys[known[place] != keys]

    def batch(
        self, x: Tensor | None, kept: Tensor, pairs: Tensor, y: Tensor, scored: Tensor
    ) -> GraphBatch:
        """Candidates in the graph of some edges.

        Args:
            x: Features of the nodes; None for an indicator of their degree among the messages.
            kept: Which edges carry messages, ``(M,)``.
            pairs: The candidates, ``(2, P)``.
            y: 1 where a candidate is an edge, ``(P,)``.
            scored: Which candidates are scored, ``(P,)``.
        """
        kept = kept & ~self.among(pairs)
        dtype = torch.get_default_dtype()
        ends = self.ends[:, kept]
        back = torch.zeros(0, dtype=torch.long)
        if not self.directed:
            back = (ends[0] != ends[1]).nonzero()[:, 0]
        messages = torch.cat([ends, ends[:, back].flip(0)], dim=1)
        count, asked = messages.shape[1], pairs.shape[1]
        weight = torch.ones(int(kept.sum())) if self.weight is None else self.weight[kept]
        weights = torch.cat([weight, weight[back], torch.zeros(asked)])
        is_message = torch.arange(count + asked) < count
        unknown = torch.full((count,), -100)
        if x is None:
            x = degree_features(messages, self.num_nodes)
        return GraphBatch(
            x=x,
            edge_index=torch.cat([messages, pairs], dim=1),
            edge_weight=weights.to(dtype),
            y=torch.cat([unknown, y]),
            mask=torch.cat([torch.zeros(count, dtype=torch.bool), scored]),
            edge_attr=self._attributes(messages, kept, back, pairs).to(dtype),
            multiplicity=is_message.to(dtype),
        )

    def _attributes(self, messages: Tensor, kept: Tensor, back: Tensor, pairs: Tensor) -> Tensor:
        """Features of messages, then of candidates: the file's, and the two of a pair."""
        near = common_neighbours(messages, pairs, self.num_nodes)
        degrees = near["preferential attachment"].log1p()
        every = [near["common neighbours"].log1p(), near["Adamic-Adar"], degrees]
        of_pairs = torch.stack(every[: self.pair_features], dim=1)
        of_messages = of_pairs.new_zeros(messages.shape[1], self.pair_features)
        columns = torch.cat([of_messages, of_pairs])
        if self.attributes is None:
            return columns
        given = self.attributes[kept].double()
        blank = given.new_zeros(pairs.shape[1], given.shape[1])
        return torch.cat([torch.cat([given, given[back], blank]), columns], dim=1)


def as_links(
    edges: Edges, num_nodes: int, directed: bool, pair_features: int = PAIR_FEATURES
) -> Links:
    """The edges of a graph, each once."""
    ends = edges.ends
    once = torch.ones(ends.shape[1], dtype=torch.bool) if directed else ends[0] <= ends[1]
    weight, attributes = edges.weight, edges.attributes
    return Links(
        ends[:, once],
        None if weight is None else weight[once],
        None if attributes is None else attributes[once],
        num_nodes,
        directed,
        pair_features,
    )


def common_neighbours(messages: Tensor, pairs: Tensor, num_nodes: int) -> dict[str, Tensor]:
    """Scores of pairs by their neighbours in a graph, directions aside, each ``(P,)`` float64.

    Args:
        messages: Edges of the graph, ``(2, E)``.
        pairs: Pairs of nodes, ``(2, P)``.
        num_nodes: Number of nodes.
    """
    ends = messages.numpy()
    both = (np.concatenate([ends[0], ends[1]]), np.concatenate([ends[1], ends[0]]))
    shape = (num_nodes, num_nodes)
    near: Any = sparse.csr_matrix((np.ones(len(both[0])), both), shape=shape)
    near.setdiag(0)
    near.eliminate_zeros()
    near.data[:] = 1
    degree = np.asarray(near.sum(1)).ravel()
    rarity = 1 / np.log(np.maximum(degree, 2))
    first, second = pairs.numpy()
    shared = near[first].multiply(near[second]).tocsr()
    scores = {
        "common neighbours": np.asarray(shared.sum(1)).ravel(),
        "Adamic-Adar": shared @ rarity,
        "preferential attachment": degree[first] * degree[second],
    }
    return {
        name: torch.from_numpy(np.asarray(score, dtype=float)) for name, score in scores.items()
    }


class _Numbers(NamedTuple):
    edges: Tensor


class LinkLoader(TensorLoader[_Numbers]):
    """Training edges in batches: each batch hides its edges among as many pairs without one.

    The pairs are drawn anew for every batch, a pure function of ``(seed, epoch, batch)``; the ranks
    share the candidates, and the graph is whole on each of them.

    Args:
        links: All edges; a pair without an edge is none of them.
        train: Numbers of the training edges.
        x: Features of the nodes, or None.
        where: Place, for messages.
        batch_size: Edges hidden at a time.
        options: Those of :class:`TensorLoader`.
    """

    def __init__(
        self,
        links: Links,
        train: Tensor,
        x: Tensor | None,
        where: str,
        batch_size: int,
        **options: Any,
    ) -> None:
        super().__init__(_Numbers(train), batch_size, **options)
        self.links, self.x, self.where, self.seed = links, x, where, options["seed"]
        self.is_train = torch.zeros(links.ends.shape[1], dtype=torch.bool)
        self.is_train[train] = True

    def fetch(self, order: Tensor, batch_idx: int) -> Any:
        """This rank's candidates of a batch, in the graph without the batch's edges."""
        rows = order[batch_idx * self.batch_size : (batch_idx + 1) * self.batch_size]
        hidden = self.data.edges[rows]
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.sampler.epoch, batch_idx))
        absent = self.links.absent(len(hidden), generator, self.where)
        pairs = torch.cat([self.links.ends[:, hidden], absent], dim=1)
        y = (torch.arange(pairs.shape[1]) < len(hidden)).long()
        scored = torch.arange(pairs.shape[1]) % self.world_size == self.rank
        return self.links.batch(self.x, self.is_train, pairs, y, scored)
