"""Graph attention, both versions, against the written-out formula."""

import pytest
import torch
from graph_helpers import permuted, random_graph

from datamodules.graph_base import block_diagonal
from lit_models import LitGAT
from lit_models.gat import GAT


def dense_layer(layer, x, edge_index, num_heads, width, v2, concat):
    """One layer node by node."""
    n = len(x)
    neighbours = [{i} for i in range(n)]
    for source, target in edge_index.T.tolist():
        neighbours[target].add(source)
    if v2:
        left = (x @ layer.lin_l.weight.T + layer.lin_l.bias).view(n, num_heads, width)
        right = (x @ layer.lin_r.weight.T + layer.lin_r.bias).view(n, num_heads, width)
    else:
        left = (x @ layer.lin.weight.T).view(n, num_heads, width)
    out = torch.zeros(n, num_heads, width, dtype=x.dtype)
    for i in range(n):
        near = sorted(neighbours[i])
        if v2:
            hidden = torch.nn.functional.leaky_relu(left[near] + right[i], 0.2)
            energy = (hidden * layer.att[0]).sum(-1)
        else:
            energy = (left[near] * layer.att_src[0]).sum(-1) + (left[i] * layer.att_dst[0]).sum(-1)
            energy = torch.nn.functional.leaky_relu(energy, 0.2)
        weights = energy.softmax(0)
        out[i] = (weights.unsqueeze(-1) * left[near]).sum(0)
    out = out.flatten(1) if concat else out.mean(1)
    out = out + layer.bias
    return out if layer.res is None else out + x @ layer.res.weight.T


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize(("skip", "encoder_size"), [(False, 0), (True, 11)])
def test_network_is_the_formula(v2, skip, encoder_size):
    batch = random_graph(13, 29, 5)
    net = GAT(5, 7, 3, 2, 3, 2, 0.5, v2, skip, encoder_size).double().eval()
    for parameter in net.parameters():  # biases start at zero, which would hide them
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = batch.x.double()
    if encoder_size:
        x = torch.nn.functional.elu(x @ net.encoder.weight.T + net.encoder.bias)
    hidden = dense_layer(net.layers[0], x, batch.edge_index, 2, 7, v2, True)
    hidden = torch.nn.functional.elu(hidden)
    expected = dense_layer(net.layers[1], hidden, batch.edge_index, 3, 3, v2, False)
    out, states, _ = net(batch.x.double(), batch.edge_index)
    torch.testing.assert_close(states, hidden, rtol=0, atol=1e-13)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("v2", [False, True])
def test_attention_sums_to_one_at_each_node(v2):
    batch = random_graph(13, 29, 5)
    model = LitGAT(5, 3, num_heads=2, v2=v2).eval()
    for edge_index, weights in model.attention_weights(batch):
        total = torch.zeros(13, weights.shape[1]).index_add(0, edge_index[1], weights)
        torch.testing.assert_close(total, torch.ones_like(total))


def order_of_senders(v2):
    """Whether two receivers can rank the same senders differently, over many random networks."""
    senders, receivers = torch.arange(5), torch.arange(5, 12)
    edges = torch.cartesian_prod(senders, receivers).T
    found = False
    for _ in range(20):
        batch = random_graph(12, 3, 5)._replace(edge_index=edges, edge_weight=None)
        model = LitGAT(5, 3, num_heads=1, v2=v2).eval()
        edge_index, weights = model.attention_weights(batch)[0]
        ranks = []
        for receiver in receivers.tolist():
            rows = (edge_index[1] == receiver) & (edge_index[0] < 5)
            ranks.append(weights[rows, 0][edge_index[0][rows].argsort()].argsort().tolist())
        found |= any(rank != ranks[0] for rank in ranks)
    return found


def test_only_the_second_version_ranks_neighbours_per_node():
    assert not order_of_senders(v2=False)
    assert order_of_senders(v2=True)


def test_renumbered_nodes_and_company_change_nothing():
    model = LitGAT(5, 3, skip=True).double().eval()
    graph, other = (
        g._replace(x=g.x.double()) for g in (random_graph(13, 29, 5), random_graph(7, 11, 5))
    )
    out = model(graph.x, graph.edge_index)
    order = torch.randperm(13)
    moved = permuted(graph, order)
    torch.testing.assert_close(model(moved.x, moved.edge_index), out[order], rtol=0, atol=1e-13)
    together = block_diagonal([other, graph])
    torch.testing.assert_close(model(together.x, together.edge_index)[7:], out, rtol=0, atol=1e-13)


def test_isolated_node_attends_to_itself():
    batch = random_graph(13, 29, 5)
    edge_index, weights = LitGAT(5, 3).eval().attention_weights(batch)[0]
    own = edge_index[1] == 12
    assert edge_index[0][own].tolist() == [12]
    torch.testing.assert_close(weights[own], torch.ones(1, 8))


@pytest.mark.parametrize("v2", [False, True])
def test_sparse_features_give_the_dense_result(v2):
    batch = random_graph(13, 29, 5)
    x = batch.x * (torch.rand(13, 5) < 0.5)
    model = LitGAT(5, 3, v2=v2, skip=True).eval()
    torch.testing.assert_close(
        model(x.to_sparse_csr(), batch.edge_index), model(x, batch.edge_index)
    )


@pytest.mark.parametrize("v2", [False, True])
def test_an_edge_of_weight_3_counts_as_three(v2):
    batch = random_graph(13, 29, 5)
    x, edges = batch.x.double(), batch.edge_index
    times = torch.arange(edges.shape[1]) % 4
    model = LitGAT(5, 3, v2=v2, weighted=True).double().eval()
    out = model(x, edges, times.double())
    repeated = model(x, edges.repeat_interleave(times, dim=1))
    torch.testing.assert_close(out, repeated, rtol=0, atol=1e-13)
    assert not torch.allclose(out, model(x, edges))


def test_without_weights_attention_reads_none():
    batch = random_graph(13, 29, 5)
    model = LitGAT(5, 3).eval()
    out = model(batch.x, batch.edge_index, batch.edge_weight)
    torch.testing.assert_close(out, model(batch.x, batch.edge_index))


def test_the_degree_tells_stars_of_one_feature_apart():
    def star(leaves):
        ends = torch.arange(1, leaves + 1)
        edges = torch.stack([ends, torch.zeros_like(ends)])
        return torch.ones(leaves + 1, 5), torch.cat([edges, edges.flip(0)], dim=1)

    for degree_input, told in ((False, False), (True, True)):
        model = LitGAT(5, 3, encoder_size=6, skip=True, degree_input=degree_input).eval()
        few, many = (model(*star(leaves))[0] for leaves in (2, 5))
        assert torch.allclose(few, many, atol=1e-5) is not told
    with pytest.raises(ValueError, match="degree_input needs an encoder"):
        LitGAT(5, 3, degree_input=True)


@pytest.mark.parametrize("v2", [False, True])
def test_an_exported_graph_has_the_same_numbers(v2):
    batch = random_graph(13, 29, 5)
    loops = torch.tensor([[2, 5], [2, 5]])
    edges = torch.cat([batch.edge_index, loops], dim=1)
    weight = torch.rand(edges.shape[1]) + 0.5
    options = {"v2": v2, "encoder_size": 6, "degree_input": True, "weighted": True}
    model = LitGAT(5, 3, skip=True, **options).eval()
    nodes, count = torch.export.Dim("nodes"), torch.export.Dim("edges")
    sizes = ({0: nodes}, {1: count}, {0: count})
    exported = torch.export.export(model, (batch.x, edges, weight), dynamic_shapes=sizes).module()
    more = torch.cat([batch.x, torch.randn(3, 5)]), edges[:, 4:], weight[4:]
    for given in ((batch.x, edges, weight), more):
        torch.testing.assert_close(exported(*given), model(*given))
