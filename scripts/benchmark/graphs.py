"""Sparse products and full batches against torch-geometric's general ways, on a graph like Cora."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv

from datamodules.batches import GraphBatch
from datamodules.graph_base import GraphLoader
from lit_models.gcn import GCN
from lit_models.layers.graph import normalized_adjacency
from scripts.benchmark.ratio import Ratio, compare, print_cases

NUM_NODES, NUM_PAIRS, NUM_FEATURES, NUM_WORDS, NUM_CLASSES = 2708, 5278, 1433, 18, 7


def graph() -> GraphBatch:
    """A random graph of Cora's size: as many nodes, edges, words and words per node."""
    torch.manual_seed(0)
    pairs = torch.randint(NUM_NODES, (2, NUM_PAIRS))
    x = torch.zeros(NUM_NODES, NUM_FEATURES)
    x.scatter_(1, torch.randint(NUM_FEATURES, (NUM_NODES, NUM_WORDS)), 1.0 / NUM_WORDS)
    return GraphBatch(
        x,
        torch.cat([pairs, pairs.flip(0)], dim=1),
        None,
        torch.randint(NUM_CLASSES, (NUM_NODES,)),
        torch.arange(NUM_NODES) < 140,
    )


class PlainGCN(nn.Module):
    """The network as torch-geometric's introduction writes it, its normalisation cached."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(NUM_FEATURES, 16, cached=True)
        self.second = GCNConv(16, NUM_CLASSES, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits."""
        hidden = F.relu(self.first(F.dropout(x, 0.5, self.training), edge_index))
        out: Tensor = self.second(F.dropout(hidden, 0.5, self.training), edge_index)
        return out


def _epoch(net: nn.Module, logits: Callable[[], Tensor], batch: GraphBatch) -> Callable[[], None]:
    """A training step and an evaluation."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=5e-4, fused=True)
    target = batch.y[batch.mask]

    def epoch() -> None:
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(logits()[batch.mask], target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        net.eval()
        with torch.no_grad():
            logits()

    return epoch


def gcn_epoch() -> Ratio:
    """An epoch of the two-layer network, both loops written by hand."""
    batch = graph()
    ours, other = GCN(NUM_FEATURES, 16, NUM_CLASSES), PlainGCN()
    x = batch.x.to_sparse_csr()
    return compare(
        _epoch(ours, lambda: ours(x, batch.edge_index)[0], batch),
        _epoch(other, lambda: other(batch.x, batch.edge_index), batch),
    )


def propagation() -> Ratio:
    """Sum over neighbours of states of width 16, forward and backward."""
    batch = graph()
    adjacency = normalized_adjacency(batch.edge_index, None, NUM_NODES)
    conv = GCNConv(16, 16, bias=False, cached=True)
    states = torch.randn(NUM_NODES, 16, requires_grad=True)

    def ours() -> None:
        adjacency.matmul(conv.lin(states)).sum().backward()  # type: ignore[no-untyped-call]

    return compare(ours, lambda: conv(states, batch.edge_index).sum().backward(), num_pairs=31)


def full_batch() -> Ratio:
    """Handing over the one graph of an epoch."""
    batch = graph()
    loader = GraphLoader(batch, "node")
    other = DataLoader([Data(x=batch.x, edge_index=batch.edge_index, y=batch.y)])
    return compare(lambda: list(loader), lambda: list(other), num_pairs=31)


CASES: dict[str, Callable[[], Ratio]] = {
    "GCN epoch, sparse features, against GCNConv": gcn_epoch,
    "neighbour sum, against GCNConv's": propagation,
    "full-batch loader, against DataLoader": full_batch,
}


def main() -> None:
    """Prints a table."""
    print_cases(CASES)


if __name__ == "__main__":
    main()
