"""The graph network against a node-by-node loop, and what each aggregation cannot tell apart."""

import pytest
import torch
from graph_helpers import permuted, random_graph

from datamodules.graph_base import block_diagonal
from lit_models import LitGraphNetwork
from lit_models.graph_network import GraphNetworkBlock, States

REDUCE = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}


def phi(update, *inputs):
    hidden = sum(
        linear.weight @ x + (0 if linear.bias is None else linear.bias)
        for linear, x in zip(update.inputs, inputs, strict=True)
    )
    return update.output.weight @ hidden.clamp(min=0) + update.output.bias


@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
@pytest.mark.parametrize("global_aggr", ["sum", "mean", "max"])
def test_block_is_the_formula(aggr, global_aggr):
    graphs = block_diagonal([random_graph(7, 11, 3), random_graph(5, 5, 3)])
    block = GraphNetworkBlock(3, aggr, global_aggr).double()
    edges = graphs.edge_index.T.tolist()
    e, v = torch.randn(len(edges), 3).double(), torch.randn(12, 3).double()
    u = torch.randn(2, 3).double()
    got = block(States(e, v, u), graphs.edge_index, graphs.graph)
    graph = graphs.graph.tolist()
    new_e = torch.stack(
        [
            e[k] + phi(block.edge_update, e[k], v[i], v[j], u[graph[i]])
            for k, (i, j) in enumerate(edges)
        ]
    )
    new_v, new_u = [], []
    for node in range(12):
        incoming = [new_e[k] for k, (_, j) in enumerate(edges) if j == node]
        pooled = REDUCE[aggr](torch.stack(incoming), 0) if incoming else torch.zeros(3).double()
        new_v.append(v[node] + phi(block.node_update, pooled, v[node], u[graph[node]]))
    for g in range(2):
        of_edges = torch.stack([new_e[k] for k, (i, _) in enumerate(edges) if graph[i] == g])
        of_nodes = torch.stack([new_v[i] for i in range(12) if graph[i] == g])
        pooled = [REDUCE[global_aggr](part, 0) for part in (of_edges, of_nodes)]
        new_u.append(u[g] + phi(block.global_update, *pooled, u[g]))
    for ours, expected in zip(got, (new_e, torch.stack(new_v), torch.stack(new_u)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def network(level, aggr="sum", task="classification", out=3, edge_features=0):
    model = LitGraphNetwork(5, out, level, task, edge_features, hidden_size=7, aggr=aggr)
    return model.double().eval()


def double(graph):
    attributes = None if graph.edge_attr is None else graph.edge_attr.double()
    return graph._replace(
        x=graph.x.double(), edge_weight=graph.edge_weight.double(), edge_attr=attributes
    )


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_numbering_and_company_change_nothing(level, aggr):
    graph = double(random_graph(13, 29, 5, edge_features=2))
    other = double(random_graph(7, 11, 5, edge_features=2))
    model = network(level, aggr, edge_features=2)
    out, order = model(graph), torch.randperm(13)
    moved = model(permuted(graph, order))
    torch.testing.assert_close(moved, out[order] if level == "node" else out, rtol=0, atol=1e-12)
    together = model(block_diagonal([other, graph]))
    torch.testing.assert_close(together[-len(out) :], out, rtol=0, atol=1e-12)


def copies(graph, count):
    """The disjoint union of copies of a graph, as one graph."""
    return block_diagonal([graph] * count)._replace(graph=None, num_graphs=1)


@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_mean_and_max_cannot_count_copies(aggr):
    graph, model = double(random_graph(7, 11, 5)), network("graph", aggr)
    torch.testing.assert_close(model(copies(graph, 3)), model(graph), rtol=0, atol=1e-12)


def test_a_sum_counts_copies():
    graph, model = double(random_graph(7, 11, 5)), network("graph")
    assert (model(copies(graph, 3)) - model(graph)).abs().max() > 1e-2


def test_only_a_maximum_ignores_proportions():
    first, second = (double(random_graph(7, 11, 5)) for _ in range(2))
    unions = [
        block_diagonal([first] * a + [second] * b)._replace(graph=None, num_graphs=1)
        for a, b in ((1, 2), (2, 1))
    ]
    distances = {}
    for aggr in ("mean", "max"):
        model = network("graph", aggr)
        distances[aggr] = (model(unions[0]) - model(unions[1])).abs().max()
    assert distances["max"] < 1e-12
    assert distances["mean"] > 1e-4


def test_edge_features_matter():
    graph = double(random_graph(7, 11, 5, edge_features=2))
    model = network("edge", edge_features=2)
    changed = graph._replace(edge_attr=graph.edge_attr + 1)
    assert (model(changed) - model(graph)).abs().max() > 1e-3


def test_numbers_come_in_units_of_the_data():
    graph = double(random_graph(7, 11, 5))._replace(
        y=torch.tensor([[30.0]]).double(), mask=torch.ones(1, dtype=torch.bool)
    )
    model = network("graph", task="regression", out=1)
    model.y_scaler.mean.fill_(20.0)
    model.y_scaler.std.fill_(4.0)
    output = model.step(graph)
    torch.testing.assert_close(output.preds, model(graph).flatten())
    torch.testing.assert_close(output.loss, ((model(graph) - 30) / 4).square().mean())


def test_shared_rounds_have_the_weights_of_one():
    deep = LitGraphNetwork(5, 3, "node", "classification", 0, 7, num_layers=5, shared=True)
    one = LitGraphNetwork(5, 3, "node", "classification", 0, 7, num_layers=1)
    assert {k: v.shape for k, v in deep.state_dict().items()} == {
        k: v.shape for k, v in one.state_dict().items()
    }


def test_wrong_size_is_named():
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        LitGraphNetwork(5, 3, "node", "classification", 0, hidden_size=0)


def test_sums_into_the_global_state_are_of_its_size():
    torch.manual_seed(0)
    graphs = [random_graph(40, 160, 5, 2) for _ in range(3)]
    model = LitGraphNetwork(5, 2, "graph", "classification", 0, aggr="sum", global_aggr="sum")
    old = {k: v for k, v in model.state_dict().items() if "sum_units" not in k}
    before = model.outputs(block_diagonal(graphs))
    model.net.take_sizes(graphs)
    edges = sum(graph.edge_index.shape[1] for graph in graphs) / 3
    for block in model.net.blocks:
        torch.testing.assert_close(block.sum_units, torch.tensor([edges, 40.0]).sqrt())
    assert model.outputs(block_diagonal(graphs)).std() < before.std() / 3
    model.load_state_dict(old)  # a run that knows no units has them at 1
    torch.testing.assert_close(model.outputs(block_diagonal(graphs)), before)


def test_numbers_of_whole_graphs_know_no_dropout():
    rates = {
        (level, task): LitGraphNetwork(5, 2, level, task, 0, dropout=0.5).net.dropout.p
        for level in ("node", "graph")
        for task in ("classification", "regression")
    }
    assert rates.pop(("graph", "regression")) == 0
    assert set(rates.values()) == {0.5}
