r"""Attention over a node's incoming edges in little memory.

torch-geometric's layers copy a sender's state to each of its edges, E H W numbers several times
over. Here the sum :math:`\sum_j \alpha_{ij} W h_j` is a sparse product per head, whose gradient
with respect to :math:`\alpha` is formed a stretch of edges at a time; per edge only numbers of the
heads remain. The layers are torch-geometric's own but for that. An exported graph cannot hold a
sparse product, and has the sum over edges written out.

A sampled edge that stands for m edges counts m times in the softmax.

Shape letters: N nodes, E edges (self-loops included), H heads, W width of a head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GATConv, GATv2Conv
from torch_geometric.utils import scatter, softmax

from lit_models.layers.graph import csr_tensor

_STRETCH = 1 << 17  # edges whose senders' states are held at a time


class AttentionEdges(NamedTuple):
    """Edges in the order of their receivers, every node's self-loop among them.

    Attributes:
        source: Source of each edge, ``(E,)``.
        target: Target of each edge, ``(E,)`` ascending.
        starts: First edge of each target, and E, ``(N + 1,)``.
        back: The edges in the order of their sources, ``(E,)``.
        back_starts: First of them of each source, and E, ``(N + 1,)``.
        log_times: Logarithm of how many edges each stands for, ``(E, 1)``; None for 1.
    """

    source: Tensor
    target: Tensor
    starts: Tensor
    back: Tensor
    back_starts: Tensor
    log_times: Tensor | None

    @property
    def num_nodes(self) -> int:
        """Number N of nodes."""
        return self.starts.shape[0] - 1  # len() would fix the size of an exported graph

    def pairs(self) -> Tensor:
        """Source and target of each edge, ``(2, E)``."""
        return torch.stack([self.source, self.target])


def attention_edges(
    edge_index: Tensor, multiplicity: Tensor | None, num_nodes: int
) -> AttentionEdges:
    """Sorts the edges, with one self-loop per node.

    Args:
        edge_index: Source and target of each edge, ``(2, E)``.
        multiplicity: How many edges each stands for, ``(E,)``; one of 0 is left out; None for 1.
        num_nodes: Number N of nodes.
    """
    if torch.compiler.is_exporting():
        return _unsorted(edge_index, multiplicity, num_nodes)
    kept = edge_index[0] != edge_index[1]
    if multiplicity is not None:
        kept &= multiplicity > 0
    own = torch.arange(num_nodes, device=edge_index.device)
    source, target = (torch.cat([ends[kept], own]) for ends in edge_index)
    order = target.argsort(stable=True)
    source, target = source[order], target[order]
    log_times = None
    if multiplicity is not None:
        times = torch.cat([multiplicity[kept], multiplicity.new_ones(num_nodes)])
        log_times = times[order].log().unsqueeze(1)
    return AttentionEdges(
        source,
        target,
        _starts(target, num_nodes),
        source.argsort(stable=True),
        _starts(source, num_nodes),
        log_times,
    )


def _unsorted(edge_index: Tensor, multiplicity: Tensor | None, num_nodes: int) -> AttentionEdges:
    """All edges as they are; one that is left out counts 0 times, so that no size depends on it."""
    own = torch.arange(num_nodes, device=edge_index.device)
    source, target = (torch.cat([ends, own]) for ends in edge_index)
    every = torch.ones_like(edge_index[0]) if multiplicity is None else multiplicity
    every = torch.where(edge_index[0] == edge_index[1], 0, every)
    times = torch.cat([every, every.new_ones(num_nodes)])
    nothing = own.new_zeros(num_nodes + 1)
    return AttentionEdges(source, target, nothing, own, nothing, times.log().unsqueeze(1))


def _starts(index: Tensor, num_nodes: int) -> Tensor:
    return F.pad(torch.bincount(index, minlength=num_nodes).cumsum(0), (1, 0))


class _Softmax(torch.autograd.Function):
    """Softmax of ``(E, H)`` over the edges into each node; keeps its result alone."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, num_nodes: int) -> Tensor:
        highest = scatter(logits, target, 0, num_nodes, "max")
        weights: Tensor = (logits - highest[target]).exp_()
        weights.div_(scatter(weights, target, 0, num_nodes)[target])
        ctx.save_for_backward(weights, target)
        ctx.num_nodes = num_nodes
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weights, target = ctx.saved_tensors
        found = weights * grad
        total = scatter(found, target, 0, ctx.num_nodes)
        return found - weights * total[target], None, None


class _WeightedSum(torch.autograd.Function):
    """Sum of the senders' states ``(N, H, W)`` by weights ``(E, H)`` at each receiver."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: AttentionEdges) -> Tensor:
        ctx.save_for_backward(weights, x)
        ctx.edges = edges
        return _product(edges.starts, edges.source, weights, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (weights, x), edges = ctx.saved_tensors, ctx.edges
        of_weights = of_x = None
        if ctx.needs_input_grad[0]:
            of_weights = torch.empty_like(weights)
            for low in range(0, len(weights), _STRETCH):
                part = slice(low, low + _STRETCH)
                sent, received = x[edges.source[part]], grad[edges.target[part]]
                of_weights[part] = (sent * received).sum(-1)
        if ctx.needs_input_grad[1]:
            columns = edges.target[edges.back]
            of_x = _product(edges.back_starts, columns, weights[edges.back], grad)
        return of_weights, of_x, None


def _product(starts: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """A sparse matrix per head, ``(E, H)`` values, times the states of that head."""
    size = (len(starts) - 1, len(x))
    heads = [
        csr_tensor(starts, columns, weights[:, head].contiguous(), size) @ x[:, head].contiguous()
        for head in range(x.shape[1])
    ]
    return torch.stack(heads, dim=1)


def attend(
    logits: Tensor, x: Tensor, edges: AttentionEdges, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention-weighted sums ``(N, H, W)`` and the weights ``(E, H)``.

    Args:
        logits: Logit of each edge, ``(E, H)``.
        x: States of the senders, ``(N, H, W)``.
        edges: The edges.
        dropout: Probability of dropping a weight.
    """
    kind = x.dtype
    precise = torch.promote_types(kind, torch.float32)  # no sparse product in half precision
    with torch.autocast(x.device.type, enabled=False):
        logits = logits.to(precise)
        if edges.log_times is not None:
            logits = logits + edges.log_times.to(precise)
        weights: Tensor
        if torch.compiler.is_exporting():
            weights = softmax(logits, edges.target, num_nodes=edges.num_nodes)
        else:
            weights = _Softmax.apply(  # type: ignore[no-untyped-call]
                logits, edges.target, edges.num_nodes
            )
        used = F.dropout(weights, dropout) if dropout else weights
        out: Tensor
        if torch.compiler.is_exporting():
            sent = used.unsqueeze(-1) * x.to(precise)[edges.source]
            out = torch.zeros_like(x, dtype=precise).index_add(0, edges.target, sent)
        else:
            out = _WeightedSum.apply(used, x.to(precise), edges)  # type: ignore[no-untyped-call]
    return out.to(kind), weights.to(kind)


def by_stretches(logits: Callable[[Tensor, Tensor], Tensor], edges: AttentionEdges) -> Tensor:
    """Logits ``(E, H)`` of a function of sources and targets that is dear in memory.

    It is evaluated a stretch of edges at a time, and again in the backward pass.
    """
    if torch.compiler.is_exporting() or len(edges.source) <= _STRETCH:
        return logits(edges.source, edges.target)
    count = len(edges.source)
    return torch.cat(
        [
            checkpoint(
                logits,
                edges.source[low : low + _STRETCH],
                edges.target[low : low + _STRETCH],
                use_reentrant=False,
            )
            for low in range(0, count, _STRETCH)
        ]
    )


def _finished(layer: Any, sums: Tensor, x: Tensor) -> Tensor:
    """Heads side by side or averaged, the node's own state, the bias."""
    out = sums.flatten(1) if layer.concat else sums.mean(1)
    if layer.res is not None:
        out = out + layer.res(x)
    found: Tensor = out + layer.bias
    return found


class LeanGATConv(GATConv):  # type: ignore[misc]
    """torch-geometric's ``GATConv`` on :class:`AttentionEdges`; arguments are its own."""

    forward_methods = ("attention",)

    def attention(self, x: Tensor, edges: AttentionEdges) -> tuple[Tensor, Tensor]:
        """Output ``(N, H W)`` or ``(N, W)``, and the weights ``(E, H)``."""
        states = self.lin(x).view(-1, self.heads, self.out_channels)
        sent = (states * self.att_src).sum(-1)
        received = (states * self.att_dst).sum(-1)
        logits = sent[edges.source] + received[edges.target]
        logits = F.leaky_relu(logits, self.negative_slope)
        dropout = self.dropout if self.training else 0.0
        sums, weights = attend(logits, states, edges, dropout)
        return _finished(self, sums, x), weights


class LeanGATv2Conv(GATv2Conv):  # type: ignore[misc]
    """torch-geometric's ``GATv2Conv`` on :class:`AttentionEdges`; arguments are its own."""

    forward_methods = ("attention",)

    def attention(self, x: Tensor, edges: AttentionEdges) -> tuple[Tensor, Tensor]:
        """Output ``(N, H W)`` or ``(N, W)``, and the weights ``(E, H)``."""
        sent = self.lin_l(x).view(-1, self.heads, self.out_channels)
        received = self.lin_r(x).view(-1, self.heads, self.out_channels)

        def logits(source: Tensor, target: Tensor) -> Tensor:
            hidden = F.leaky_relu(sent[source] + received[target], self.negative_slope)
            found: Tensor = (hidden * self.att).sum(-1)
            return found

        dropout = self.dropout if self.training else 0.0
        sums, weights = attend(by_stretches(logits, edges), sent, edges, dropout)
        return _finished(self, sums, x), weights
