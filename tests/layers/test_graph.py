"""Sparse products against dense ones, in values and gradients."""

import pytest
import torch
from graph_helpers import dense_adjacency, random_edges
from torch_geometric.nn import GCNConv

from lit_models.layers.graph import (
    AdjacencyCache,
    FeatureDropout,
    FeatureLinear,
    normalized_adjacency,
)


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("directed", [True, False])
def test_normalized_adjacency_is_the_formula(self_loops, directed):
    edges = random_edges(11, 23, directed)
    weight = torch.rand(edges.shape[1])
    adjacency = normalized_adjacency(edges, weight, 11, self_loops)
    dense = dense_adjacency(edges, weight, 11, self_loops)
    torch.testing.assert_close(adjacency.matrix.to_dense(), dense, rtol=0, atol=1e-14)
    torch.testing.assert_close(adjacency.transposed.to_dense(), dense.T, rtol=0, atol=1e-14)


def test_product_has_the_gradient_of_the_dense_one():
    edges = random_edges(11, 23, directed=True)
    adjacency = normalized_adjacency(edges, torch.rand(edges.shape[1]), 11)
    x = torch.randn(11, 5, requires_grad=True)
    assert torch.autograd.gradcheck(adjacency.matmul, x)


def test_convolution_is_that_of_torch_geometric():
    edges = random_edges(13, 29)
    weight = torch.rand(edges.shape[1])
    conv = GCNConv(5, 3)
    x = torch.randn(13, 5)
    ours = normalized_adjacency(edges, weight, 13).matmul(conv.lin(x)) + conv.bias
    torch.testing.assert_close(ours, conv(x, edges, weight), rtol=0, atol=1e-14)


def test_cache_holds_one_graph():
    cache = AdjacencyCache()
    edges = random_edges(7, 11)
    first = cache(edges, None, 7, torch.float64)
    assert cache(edges, None, 7, torch.float64) is first
    assert cache(edges, None, 7, torch.float32).matrix.dtype == torch.float32
    other = torch.tensor([[0, 1], [1, 0]])
    torch.testing.assert_close(
        cache(other, None, 7, torch.float64).matrix.to_dense(),
        dense_adjacency(other, torch.ones(2), 7, True),
    )
    weight = torch.rand(2)
    torch.testing.assert_close(
        cache(other, weight, 7, torch.float64).matrix.to_dense(),
        dense_adjacency(other, weight, 7, True),
    )


@pytest.mark.parametrize("inference", [False, True])
def test_a_graph_changed_in_place_is_another_graph(inference):
    with torch.inference_mode(inference):
        cache, uncached = AdjacencyCache(), AdjacencyCache(cached=False)
        edges, weight = random_edges(7, 11), torch.ones(2)
        cache(edges, None, 7, torch.float64)
        edges[:, 0] = edges[:, 1]
        expected = dense_adjacency(edges, torch.ones(edges.shape[1]), 7, True)
        for module in (cache, uncached):
            found = module(edges, None, 7, torch.float64).matrix.to_dense()
            torch.testing.assert_close(found, expected)
        pair = torch.tensor([[0, 1], [1, 0]])
        cache(pair, weight, 7, torch.float64)
        weight *= 3
        found = cache(pair, weight, 7, torch.float64).matrix.to_dense()
        torch.testing.assert_close(found, dense_adjacency(pair, weight, 7, True))


def test_uncached_adjacency_is_computed_anew():
    cache, edges = AdjacencyCache(cached=False), random_edges(7, 11)
    first = cache(edges, None, 7, torch.float64)
    assert cache(edges, None, 7, torch.float64) is not first


@pytest.mark.parametrize("bias", [True, False])
def test_sparse_features_give_the_dense_result(bias):
    layer = FeatureLinear(17, 5, bias)
    for _ in range(2):  # the second set has another pattern
        x = torch.randn(13, 17) * (torch.rand(13, 17) < 0.2)
        grads = []
        for features in (x, x.to_sparse_csr()):
            layer.zero_grad()
            out = layer(features)
            torch.testing.assert_close(out, layer(x), rtol=0, atol=1e-14)
            out.square().sum().backward()
            grads.append(layer.weight.grad.clone())
        torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


def test_dropped_sparse_features_keep_pattern_and_scale():
    x = torch.randn(101, 97) * (torch.rand(101, 97) < 0.3)
    dropout = FeatureDropout(0.4)
    sparse = x.to_sparse_csr()
    dropped = dropout(sparse).to_dense()
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / 0.6)
    share = kept.sum() / (x != 0).sum()
    assert abs(share.item() - 0.6) < 4 * (0.24 / (x != 0).sum().item()) ** 0.5
    assert dropout.eval()(sparse) is sparse


def test_gradient_through_dropped_features_is_the_dense_one():
    x = torch.randn(13, 17) * (torch.rand(13, 17) < 0.3)
    layer, dropout = FeatureLinear(17, 5), FeatureDropout(0.5)
    for _ in range(2):
        dropped = dropout(x.to_sparse_csr())
        layer.zero_grad()
        layer(dropped).square().sum().backward()
        sparse = layer.weight.grad.clone()
        layer.zero_grad()
        layer(dropped.to_dense()).square().sum().backward()
        torch.testing.assert_close(sparse, layer.weight.grad, rtol=0, atol=1e-12)
