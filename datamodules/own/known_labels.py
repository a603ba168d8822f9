r"""Classes of the training nodes as inputs: spread along the edges, one's own hidden while scored.

Of the training nodes each step shows the classes of some and scores the others (Shi et al., "Masked
Label Prediction", 2021); validation, test and prediction see those of all training nodes. What is
shown is spread as in label propagation (Zhou et al., "Learning with Local and Global Consistency",
2004), :math:`s \leftarrow (1 - r) \hat A s + r s_0`, and read as shares of the classes less their
shares among what is shown: nothing known is 0. So a network can know what label propagation knows;
one step in eight shows nothing, so that it can also do without.

Shape letters: N nodes, E edges, K classes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import GraphBatch
from datamodules.loading.loader import TensorLoader
from datamodules.seeds import seed_of

_RETURN = 0.1  # share r of its own label that a node keeps at each step
_NUM_STEPS = 50
_LEAST, _MOST = 0.3, 0.9  # shares of the training nodes that are shown
_NOTHING_EVERY = 8  # steps
_MAX_ENTRIES = 20_000_000  # E K, beyond which a step is dear


def affordable(num_edges: int, num_classes: int) -> bool:
    """Whether labels can be spread at each step."""
    return num_edges * num_classes <= _MAX_ENTRIES


class LabelSpread:
    """Spreads the classes of some nodes over a graph.

    Args:
        graph: The one graph.
        y: Class of each node, ``(N,)``.
        num_classes: Number K of classes.
    """

    def __init__(self, graph: GraphBatch, y: Tensor, num_classes: int) -> None:
        self.y, self.num_classes = y, num_classes
        size = len(y)
        source, target = graph.edge_index
        weight = torch.ones(len(source)) if graph.edge_weight is None else graph.edge_weight.float()
        degree = torch.zeros(size).index_add(0, target, weight)
        root = degree.clamp(min=1e-12).rsqrt()
        values = (weight * root[source] * root[target]).numpy()
        ends = (target.numpy(), source.numpy())
        self._matrix: Any = sparse.csr_matrix((values, ends), shape=(size, size))

    def __call__(self, shown: Tensor) -> Tensor:
        """Scores of the classes of each node, ``(N, K)``; 0 where nothing is near.

        Args:
            shown: Numbers of the nodes whose class is given.
        """
        given = np.zeros((len(self.y), self.num_classes), dtype=np.float32)
        given[shown.numpy(), self.y[shown].numpy()] = 1.0
        state = given
        for _ in range(_NUM_STEPS):
            state = (1 - _RETURN) * (self._matrix @ state) + _RETURN * given
        return torch.from_numpy(state)

    def inputs(self, shown: Tensor) -> Tensor:
        """What a network reads: shares of the classes, centred, ``(N, K)``."""
        if len(shown) == 0:
            return torch.zeros(len(self.y), self.num_classes)
        state = self(shown)
        total = state.sum(1, keepdim=True)
        prior = F.one_hot(self.y[shown], self.num_classes).float().mean(0)
        share = state / total.clamp(min=1e-30)
        return torch.where(total > 0, share - prior, 0.0)


def beside(x: Tensor, columns: Tensor) -> Tensor:
    """Features, dense or sparse, with further columns."""
    columns = columns.to(x.dtype)
    if x.layout == torch.strided:
        return torch.cat([x, columns], dim=1)
    starts, own = x.crow_indices(), x.col_indices()
    counts, extra = starts.diff(), columns.shape[1]
    rows = torch.arange(len(counts))
    owner = torch.cat([rows.repeat_interleave(counts), rows.repeat_interleave(extra)])
    places = torch.cat([own, (torch.arange(extra) + x.shape[1]).repeat(len(counts))])
    values = torch.cat([x.values(), columns.flatten()])
    order = owner.argsort(stable=True)
    return torch.sparse_csr_tensor(
        F.pad((counts + extra).cumsum(0), (1, 0)),
        places[order],
        values[order],
        (x.shape[0], x.shape[1] + extra),
        check_invariants=False,
    )


class _Passes(NamedTuple):
    passes: Tensor


class KnownLabelLoader(TensorLoader[_Passes]):
    """Steps over one graph, each of which shows some training labels and scores the others.

    What a step shows is a pure function of ``(seed, epoch, batch)``; the ranks share what it
    scores.

    Args:
        data: The graph without label inputs; its scored nodes are the training nodes.
        spread: Spreads their labels.
        passes: Steps of an epoch.
        options: Those of :class:`TensorLoader`.
    """

    def __init__(self, data: GraphBatch, spread: LabelSpread, passes: int, **options: Any) -> None:
        super().__init__(_Passes(torch.arange(passes)), 1, **options)
        self.graph, self.spread, self.seed = data, spread, options["seed"]
        self.train = data.mask.nonzero()[:, 0]

    def fetch(self, order: Tensor, batch_idx: int) -> Any:
        """The graph with what the step shows; this rank's share of the others is scored."""
        epoch, count = self.sampler.epoch, len(self.train)
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, batch_idx))
        nodes = self.train[torch.randperm(count, generator=generator)]
        share = _LEAST + (_MOST - _LEAST) * float(torch.rand((), generator=generator))
        step = epoch * self.num_rows + batch_idx
        shown = 0 if step % _NOTHING_EVERY == 0 else min(round(share * count), count - 1)
        hidden = nodes[shown:]
        mine = hidden[self.rank :: self.world_size]
        mask = torch.zeros_like(self.graph.mask).index_fill_(0, mine, True)
        x = beside(self.graph.x, self.spread.inputs(nodes[:shown]))
        return self.graph._replace(x=x, mask=mask)
