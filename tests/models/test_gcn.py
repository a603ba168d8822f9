"""The graph convolutional network against its written-out formula, and what all of them keep."""

import pytest
import torch
from graph_helpers import dense_adjacency, permuted, random_graph
from torch_geometric.nn import GCNConv

from datamodules.graph_base import block_diagonal
from lit_models import LitGCN
from lit_models.gcn import GCN


@pytest.fixture
def graph():
    return random_graph(13, 29, 5)


@pytest.mark.parametrize(
    ("encoder_size", "skip", "degree_input"), [(0, False, False), (7, True, False), (7, True, True)]
)
def test_network_is_the_formula(encoder_size, skip, degree_input):
    batch = random_graph(13, 29, 5)
    net = GCN(5, 7, 3, 3, 0.5, encoder_size, skip, degree_input=degree_input).double().eval()
    x, weight = batch.x.double(), batch.edge_weight.double()
    adjacency = dense_adjacency(batch.edge_index, weight, 13, True)
    expected = x
    if encoder_size:
        expected = expected @ net.encoder.weight.T + net.encoder.bias
        if degree_input:
            plain = torch.zeros(13, 13).double()
            plain[batch.edge_index[1], batch.edge_index[0]] = weight
            degree = (plain.sum(1) + 1).log1p()  # the graph has no self-loop
            expected = expected + degree[:, None] @ net.encoder.of_degree.weight.T
        expected = expected.clamp(min=0)
    for index, conv in enumerate(net.convs):
        own = expected @ conv.skip.weight.T if skip else 0
        expected = adjacency @ expected @ conv.lin.weight.T + conv.bias + own
        if index < 2:
            expected = expected.clamp(min=0)
    out, _ = net(x, batch.edge_index, weight)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


def test_paper_form_is_torch_geometrics(graph):
    net = GCN(5, 7, 3).double().eval()
    convs = [GCNConv(5, 7).double(), GCNConv(7, 3).double()]
    for ours, theirs in zip(net.convs, convs, strict=True):
        theirs.lin.weight.data, theirs.bias.data = ours.lin.weight.data, ours.bias.data
    x = graph.x.double()
    expected = convs[1](convs[0](x, graph.edge_index).relu(), graph.edge_index)
    torch.testing.assert_close(net(x, graph.edge_index)[0], expected, rtol=0, atol=1e-13)


def test_renumbered_nodes_give_renumbered_outputs(graph):
    model = LitGCN(5, 3, skip=True).double().eval()
    graph = graph._replace(x=graph.x.double(), edge_weight=graph.edge_weight.double())
    order = torch.randperm(13)
    other = permuted(graph, order)
    out = model(graph.x, graph.edge_index, graph.edge_weight)
    again = model(other.x, other.edge_index, other.edge_weight)
    torch.testing.assert_close(again, out[order], rtol=0, atol=1e-13)


def test_isolated_node_sees_itself_alone(graph):
    model = LitGCN(5, 3).eval()
    others = graph.x.clone()
    others[:-1] = torch.randn(12, 5)
    out = model(graph.x, graph.edge_index)
    assert torch.isfinite(out).all()
    assert torch.equal(model(others, graph.edge_index)[-1], out[-1])


def test_a_graph_beside_others_gives_what_it_gives_alone(graph):
    model = LitGCN(5, 3, encoder_size=7, skip=True).double().eval()
    graphs = [graph, random_graph(17, 31, 5), random_graph(3, 2, 5)]
    graphs = [g._replace(x=g.x.double(), edge_weight=g.edge_weight.double()) for g in graphs]
    together = block_diagonal(graphs)
    out = model(together.x, together.edge_index, together.edge_weight)
    alone = [model(g.x, g.edge_index, g.edge_weight) for g in graphs]
    torch.testing.assert_close(out, torch.cat(alone), rtol=0, atol=1e-13)


def test_sparse_features_train_as_dense_ones(graph):
    x = graph.x * (torch.rand(13, 5) < 0.5)
    model = LitGCN(5, 3, dropout=0.0)
    grads = []
    for features in (x, x.to_sparse_csr()):
        model.zero_grad()
        model.step(graph._replace(x=features)).loss.backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for dense, sparse in zip(*grads, strict=True):
        torch.testing.assert_close(dense, sparse, rtol=1e-5, atol=1e-6)


def test_only_masked_nodes_are_scored(graph):
    model = LitGCN(5, 3).eval()
    mask = torch.rand(13) < 0.4
    mask[0] = True
    output = model.step(graph._replace(mask=mask))
    logits = model(graph.x, graph.edge_index, graph.edge_weight)
    expected = -logits.log_softmax(1)[mask].gather(1, graph.y[mask, None]).mean()
    torch.testing.assert_close(output.loss, expected)
    assert output.num_targets == mask.sum()


def test_wrong_size_is_named():
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        LitGCN(5, 3, hidden_size=0)
    with pytest.raises(ValueError, match="degree_input needs an encoder"):
        LitGCN(5, 3, degree_input=True)
