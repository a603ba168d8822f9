"""Attention in little memory against torch-geometric's layers, forwards, backwards and in bytes."""

import pytest
import torch
from graph_helpers import random_edges, random_graph
from torch_geometric.nn import GATConv, GATv2Conv

from lit_models import LitGAT, LitGCN, LitGraphNetwork, graph_network
from lit_models.layers import graph_attention
from lit_models.layers.graph_attention import LeanGATConv, LeanGATv2Conv, attention_edges

LAYERS = {"GAT": (LeanGATConv, GATConv), "GATv2": (LeanGATv2Conv, GATv2Conv)}


def both(name, **options):
    ours, theirs = (make(5, 7, 3, **options).double() for make in LAYERS[name])
    theirs.load_state_dict(ours.state_dict())
    for parameter in ours.parameters():  # biases start at zero, which would hide them
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("stretch", [7, 1 << 17])
def test_layer_is_torch_geometrics(monkeypatch, name, concat, residual, stretch):
    monkeypatch.setattr(graph_attention, "_STRETCH", stretch)
    ours, theirs = both(name, concat=concat, residual=residual)
    edge_index = torch.cat([random_edges(13, 29), torch.tensor([[4, 2], [4, 2]])], dim=1)
    x, other = (torch.randn(13, 5).double() for _ in range(2))
    found = []
    for layer in (ours, theirs):
        features = x.clone().requires_grad_()
        layer.zero_grad()
        if layer is ours:
            edges = attention_edges(edge_index, None, 13)
            out, weights = layer.attention(features, edges)
            order = (edges.target * 13 + edges.source).argsort()
        else:
            out, (index, weights) = layer(features, edge_index, return_attention_weights=True)
            order = (index[1] * 13 + index[0]).argsort()
        (out * other[:, :1]).square().sum().backward()
        grads = [p.grad for p in layer.parameters()]
        found.append([out, weights[order], features.grad, *grads])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-11)


def test_an_edge_that_stands_for_several_counts_as_often():
    layer = LeanGATConv(5, 7, 3).double()
    x = torch.randn(6, 5).double()
    edge_index = torch.tensor([[1, 1, 1, 2, 3], [0, 0, 0, 0, 0]])
    several = layer.attention(x, attention_edges(edge_index, None, 6))[0]
    times = torch.tensor([3.0, 1.0, 1.0, 0.0]).double()
    sampled = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])
    out = layer.attention(x, attention_edges(sampled, times, 6))[0]
    torch.testing.assert_close(out, several, rtol=0, atol=1e-12)


def saved_bytes(run):
    """Bytes kept for a backward pass."""
    kept = {}

    def pack(tensor):
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    return sum(kept.values()), out


@pytest.mark.parametrize("name", LAYERS)
def test_an_edge_costs_numbers_of_heads_alone(monkeypatch, name):
    monkeypatch.setattr(graph_attention, "_STRETCH", 1000)
    num_edges, heads, width = 20_000, 4, 32
    edge_index = torch.randint(100, (2, num_edges))
    x = torch.randn(100, 5)
    ours, theirs = (make(5, width, heads) for make in LAYERS[name])
    edges = attention_edges(edge_index, None, 100)
    index = sum(part.numel() * 8 for part in edges if part is not None)  # made once for all layers
    mine, _ = saved_bytes(lambda: ours.attention(x, edges)[0])
    general, _ = saved_bytes(lambda: theirs(x, edge_index))
    assert mine - index < 5 * heads * 4 * num_edges
    assert general > heads * width * 4 * num_edges


def test_evaluation_by_stretches_is_that_of_all_edges(monkeypatch):
    graph = random_graph(40, 200, 5, edge_features=2)
    networks = [
        LitGCN(5, 3, skip=True),
        LitGAT(5, 3, v2=True),
        LitGAT(5, 3),
        LitGraphNetwork(5, 3, "node", "classification", 2, 7),
    ]
    whole = [model.eval().outputs(graph) for model in networks]
    monkeypatch.setattr(graph_attention, "_STRETCH", 13)
    monkeypatch.setattr(graph_network, "_STRETCH", 13)
    with torch.no_grad():
        parts = [model.outputs(graph) for model in networks]
    for ours, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", [False, True])
def test_half_precision_is_close(version):
    graph = random_graph(40, 200, 5)
    model = LitGAT(5, 3, dropout=0.0, v2=version)
    expected = model.step(graph)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.step(graph)
    found.loss.backward()
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.05, atol=0.05)
