"""Sparse products with a fixed graph or fixed sparse features, and what is computed once for them.

Gathering a row per edge and scattering it back, as message passing does in general, moves E rows
of memory; where a message is the sender's state times a fixed weight, the sum over the edges is a
product with a sparse matrix, ten times faster on a CPU. torch differentiates that product through
a conversion of the matrix at each step; here the transpose is kept beside it.

Shape letters: N nodes, E edges, F input features, W width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, scatter


class SparseMatrix(NamedTuple):
    """A constant sparse matrix and its transpose.

    Attributes:
        matrix: The matrix, CSR.
        transposed: Its transpose, CSR.
    """

    matrix: Tensor
    transposed: Tensor

    def matmul(self, x: Tensor) -> Tensor:
        """Product with a dense matrix, in its precision; differentiable in ``x``."""
        product: Tensor = _SparseProduct.apply(  # type: ignore[no-untyped-call]
            x.to(self.matrix.dtype), *self
        )
        return product.to(x.dtype) if _is_half(x.dtype) else product


class EdgeSum(NamedTuple):
    """The same product written as a sum over edges, which an exported graph can hold.

    Attributes:
        source: Source of each edge, ``(E,)``.
        target: Target of each edge, ``(E,)``.
        weight: Weight of each edge, ``(E,)``.
    """

    source: Tensor
    target: Tensor
    weight: Tensor

    def matmul(self, x: Tensor) -> Tensor:
        """Product of the matrix with a dense one."""
        weight = self.weight.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        return torch.zeros_like(x).index_add(0, self.target, weight * x[self.source])


Adjacency = SparseMatrix | EdgeSum


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        with torch.autocast(x.device.type, enabled=False):  # no sparse product in half precision
            return matrix @ x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ grad.contiguous(), None, None


def _is_half(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def csr_tensor(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR tensor of parts known to be right."""
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def csr_matrix(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR matrix of the given entries; entries at one place add up."""
    order = (rows * shape[1] + columns).argsort()
    starts = F.pad(torch.bincount(rows, minlength=shape[0]).cumsum(0), (1, 0))
    return csr_tensor(starts, columns[order], values[order], shape)


def normalized_adjacency(
    edge_index: Tensor,
    edge_weight: Tensor | None,
    num_nodes: int,
    add_self_loops: bool = True,
    degree: Tensor | None = None,
) -> Adjacency:
    r"""The adjacency normalised by degrees, whose product sums over the edges into each node.

    Args:
        edge_index: Source and target of each edge, ``(2, E)``.
        edge_weight: Weight of each edge, ``(E,)``; None for 1.
        num_nodes: Number N of nodes.
        add_self_loops: Whether to add I: :math:`D^{-1/2} (A + I) D^{-1/2}`. Without it it is
            :math:`D_{in}^{-1/2} A D_{out}^{-1/2}`, by the receiver's incoming and the sender's
            outgoing weights, so that a node without an incoming edge is heard; on an undirected
            graph both are its degree.
        degree: Degrees of the whole graph with I, ``(N,)``, where the edges are a sample of its
            own and weigh as much as those they stand for.

    Returns:
        The ``(N, N)`` matrix: a :class:`SparseMatrix`; an :class:`EdgeSum` while a model is
        exported.
    """
    dtype = torch.get_default_dtype() if edge_weight is None else edge_weight.dtype
    if degree is not None:
        assert edge_weight is not None
        loops = add_remaining_self_loops(edge_index, edge_weight, 1.0, num_nodes)
        (source, target), weight = loops
        root = _inverse_root(degree.to(dtype))
        weight = root[source] * weight * root[target]
    elif add_self_loops:
        (source, target), weight = gcn_norm(edge_index, edge_weight, num_nodes, dtype=dtype)
    else:
        if edge_weight is None:
            edge_weight = edge_index.new_ones(edge_index.shape[1], dtype=dtype)
        source, target = edge_index
        into = scatter(edge_weight, target, 0, num_nodes)
        out = scatter(edge_weight, source, 0, num_nodes)
        weight = _inverse_root(out)[source] * edge_weight * _inverse_root(into)[target]
    if torch.compiler.is_exporting():
        return EdgeSum(source, target, weight)
    shape = (num_nodes, num_nodes)
    return SparseMatrix(
        csr_matrix(target, source, weight, shape), csr_matrix(source, target, weight, shape)
    )


def log_degree(
    edge_index: Tensor, edge_weight: Tensor | None, like: Tensor, degree: Tensor | None = None
) -> Tensor:
    r""":math:`\ln(1 + \tilde d)` of each node, ``(N, 1)``, which a weighted mean cannot tell.

    Args:
        edge_index: Source and target of each edge, ``(2, E)``.
        edge_weight: Weight of each edge, ``(E,)``; None for 1.
        like: A tensor of N rows in the precision asked for.
        degree: Degrees :math:`\tilde d` of the whole graph with I, where the edges are a sample.
    """
    if degree is None:
        source, target = edge_index
        weight = like.new_ones(target.shape[0]) if edge_weight is None else edge_weight.to(like)
        own = (source == target).to(like)
        sums = like.new_zeros(like.shape[0], 2)
        sums = sums.index_add(0, target, torch.stack([weight, own], dim=1))
        degree = sums[:, 0] + (sums[:, 1] == 0)
    return degree.to(like).log1p().unsqueeze(1)


def _inverse_root(degree: Tensor) -> Tensor:
    return degree.pow(-0.5).masked_fill(degree == 0, 0.0)


class LastResult:
    """Keeps what was computed of the tensors seen last.

    A full-batch loader hands over the same tensors each epoch: what depends on them alone is
    computed once. A tensor that was changed in place is another one.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] | None = None
        self._result: Any = None

    def get(self, tensors: Sequence[Tensor | None], rest: Any, make: Callable[[], Any]) -> Any:
        """The result, made anew where the tensors or the rest are not those seen last.

        Args:
            tensors: What the result depends on.
            rest: What else it depends on, comparable.
            make: Makes it.
        """
        # A graph that is traced is no graph to keep, nor is one whose changes nobody counts.
        given = [tensor for tensor in tensors if tensor is not None]
        if torch.compiler.is_exporting() or any(tensor.is_inference() for tensor in given):
            return make()
        changes = tuple(tensor._version for tensor in given)
        seen = self._seen
        if (
            seen is None
            or len(seen[0]) != len(tensors)
            or any(old is not new for old, new in zip(seen[0], tensors, strict=True))
            or seen[1:] != (changes, rest)
        ):
            # Holding the tensors keeps their identities from being reused.
            self._seen, self._result = (tuple(tensors), changes, rest), make()
        return self._result


class AdjacencyCache(nn.Module):
    """Keeps the normalised adjacency of the graph it saw last.

    A full-batch loader hands over the same tensors each epoch, and a series' windows share one
    graph: there it is computed once. A tensor that was changed in place is another graph.

    Args:
        add_self_loops: Whether a node is a neighbour of itself.
        cached: Whether to keep the matrix; else it is computed at each call.
    """

    def __init__(self, add_self_loops: bool = True, cached: bool = True) -> None:
        super().__init__()
        self.add_self_loops, self.cached = add_self_loops, cached
        self._last = LastResult()

    def forward(
        self,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        num_nodes: int,
        dtype: torch.dtype,
        degree: Tensor | None = None,
    ) -> Adjacency:
        """The matrix of :func:`normalized_adjacency`, in a given precision; at least single."""

        def make() -> Adjacency:
            precise = torch.float32 if _is_half(dtype) else dtype
            weight = edge_index.new_ones(edge_index.shape[1], dtype=precise)
            weight = weight if edge_weight is None else edge_weight.to(precise)
            return normalized_adjacency(edge_index, weight, num_nodes, self.add_self_loops, degree)

        if not self.cached or degree is not None:  # a sample is not seen again
            return make()
        tensors = (edge_index, edge_weight)
        adjacency: Adjacency = self._last.get(tensors, (num_nodes, dtype), make)
        return adjacency


class FeatureDropout(nn.Dropout):
    """Dropout of dense or sparse features.

    A zero stays zero either way: of sparse features only the entries are drawn, which is the same
    distribution at the cost of the non-zeros.

    Shape:
        Input and output ``(N, F)``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Features with entries dropped."""
        if input.layout != torch.sparse_csr:
            return super().forward(input)
        if not self.training or self.p == 0:
            return input
        values = super().forward(input.values())
        shape = (input.shape[0], input.shape[1])
        return csr_tensor(input.crow_indices(), input.col_indices(), values, shape)


class FeatureLinear(nn.Linear):
    """A linear map of dense or sparse features, with Glorot's initialisation.

    Args:
        in_features: Number F of features.
        out_features: Width W.
        bias: Whether to add a bias, at first zero.

    Shape:
        Input ``(N, F)``, output ``(N, W)``.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self._kept: tuple[Tensor, int, tuple[Tensor, Tensor, Tensor]] | None = None

    def reset_parameters(self) -> None:
        """Draws the weights of Glorot and Bengio (2010)."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Mapped features."""
        if input.layout != torch.sparse_csr:
            return super().forward(input)
        if _is_half(input.dtype):
            input = input.float()
        out = SparseMatrix(input, self._transpose(input)).matmul(self.weight.t())
        return out if self.bias is None else out + self.bias

    def _transpose(self, x: Tensor) -> Tensor:
        """The transpose; its pattern is kept, since dropout changes the values alone."""
        columns = x.col_indices()
        kept, counted = self._kept, not columns.is_inference()
        if (
            kept is None
            or not counted
            or kept[0].data_ptr() != columns.data_ptr()
            or kept[0].shape != columns.shape
            or kept[1] != columns._version
        ):
            counts = x.crow_indices().diff()
            rows = torch.repeat_interleave(torch.arange(len(counts), device=x.device), counts)
            order = (columns * x.shape[0] + rows).argsort()
            starts = F.pad(torch.bincount(columns, minlength=x.shape[1]).cumsum(0), (1, 0))
            kept = (columns, columns._version if counted else -1, (starts, rows[order], order))
            self._kept = kept if counted else None
        starts, rows, order = kept[2]
        return csr_tensor(starts, rows, x.values()[order], (x.shape[1], x.shape[0]))


class NodeEncoder(FeatureLinear):
    """A linear map of a node's features and, where asked, of the logarithm of its degree.

    Args:
        in_features: Number F of features.
        out_features: Width W.
        degree_input: Whether the degree is mapped too.

    Shape:
        Input ``(N, F)`` and edges ``(2, E)``, output ``(N, W)``.
    """

    def __init__(self, in_features: int, out_features: int, degree_input: bool) -> None:
        super().__init__(in_features, out_features, bias=True)
        self.of_degree = FeatureLinear(1, out_features) if degree_input else None
        self._degree = LastResult()

    def forward(self, input: Tensor, *graph: Tensor | None) -> Tensor:
        """Mapped features; ``graph`` is that of :func:`log_degree`: edges, weights and degrees."""
        out = super().forward(input)
        if self.of_degree is None:
            return out

        def make() -> Tensor:
            edge_index, edge_weight, degree = graph
            assert edge_index is not None
            return log_degree(edge_index, edge_weight, out.detach(), degree)

        found: Tensor = self._degree.get(graph, (out.shape[0], out.dtype), make)
        mapped: Tensor = out + self.of_degree(found)
        return mapped
