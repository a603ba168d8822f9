"""Sampled neighbourhoods: which edges, how many they stand for, and the whole graph's numbers."""

import pandas as pd
import pytest
import torch
from graph_helpers import random_edges, random_graph
from torch_geometric.data import Data

from datamodules import GraphDataModule, InputError, StochasticBlockModelDataModule
from datamodules.loading.neighbors import NeighborLoader, NeighborSampler
from lit_models import LitGAT, LitGCN, LitGraphNetwork
from lit_models.__main__ import main

OPTIONS = {"shuffle": True, "seed": 3, "drop_last": False}


def large(num_nodes=200, num_edges=900, loops=True, edge_features=2, directed=False):
    """A graph with hubs, an isolated node, weights, features of edges and some self-loops."""
    graph = random_graph(num_nodes, num_edges, 5, edge_features=edge_features)
    if directed:
        graph = graph._replace(edge_index=random_edges(num_nodes, num_edges, directed=True))
    hub = torch.stack([torch.arange(1, 90), torch.zeros(89, dtype=torch.long)])
    edges = torch.cat([graph.edge_index, hub, hub.flip(0)], dim=1)
    if loops:
        own = torch.arange(0, num_nodes, 7)
        edges = torch.cat([edges, torch.stack([own, own])], dim=1)
    edges = torch.unique(edges, dim=1)
    count = edges.shape[1]
    return graph._replace(
        x=graph.x.double(),
        edge_index=edges,
        edge_weight=torch.rand(count).double() + 0.1,
        edge_attr=torch.randn(count, edge_features).double() if edge_features else None,
        mask=torch.rand(num_nodes) < 0.5,
    )


def models(aggr="sum", num_layers=2, edge_features=2):
    degree = {"encoder_size": 6, "degree_input": True}
    yield LitGCN(5, 3, 7, num_layers, 0.0, skip=True, **degree)
    yield LitGAT(5, 3, 4, 3, 2, num_layers, 0.0, skip=True, weighted=True, **degree)
    yield LitGAT(5, 3, 4, 3, 2, num_layers, 0.0, v2=True)
    yield LitGraphNetwork(
        5, 3, "node", "classification", edge_features, 7, num_layers, aggr, global_state=False
    )


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def own_targets(loader, index):
    """Numbers of this rank's targets of a batch."""
    return loader.data.nodes[loader._share(loader.sampler.order(), index)]


@pytest.mark.parametrize("num_neighbors", [[-1, -1], [1000, 1000]])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.usefixtures("double")
def test_wide_samples_are_the_whole_graph(num_neighbors, world_size, directed):
    data = large(directed=directed)
    for model in models():
        model = model.double().eval()
        whole = model.outputs(data)
        for rank in range(world_size):
            share = {"rank": rank, "world_size": world_size}
            loader = NeighborLoader(data, num_neighbors, 32, **OPTIONS, **share)
            for index, batch in enumerate(loader):
                assert (batch.multiplicity == 1).all()
                nodes = own_targets(loader, index)
                assert torch.equal(batch.y[batch.mask], data.y[nodes])
                out = model.outputs(batch)[batch.mask]
                torch.testing.assert_close(out, whole[nodes], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_gradients_of_wide_samples_are_those_of_the_whole_graph():
    data = large()
    (batch,) = NeighborLoader(data, [-1, -1], 1000, **OPTIONS, rank=0, world_size=1)
    for model in models():
        found = []
        for graph in (data, batch):
            model.zero_grad()
            model.step(graph).loss.backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert found[0]
        for ours, expected in zip(*found, strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_a_sampled_edge_stands_for_its_stretch():
    data = large(loops=False)
    sampler = NeighborSampler(data.edge_index, 200)
    degree = torch.bincount(data.edge_index[1], minlength=200)
    nodes = torch.tensor([0, 5, 199, 17])
    seen = torch.zeros(data.edge_index.shape[1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        part = sampler.sample(nodes, [4], generator)
        assert torch.equal(part.nodes[:4], nodes)
        ends = part.nodes[part.edge_index]
        assert torch.equal(ends, data.edge_index[:, part.edges])
        assert len(torch.unique(part.edges)) == len(part.edges)
        into = torch.bincount(part.edge_index[1], minlength=4)[:4]
        assert torch.equal(into, degree[nodes].clamp(max=4))
        total = torch.zeros(4, dtype=torch.long)
        total.index_add_(0, part.edge_index[1], part.multiplicity)
        assert torch.equal(total, degree[nodes])
        seen.index_add_(0, part.edges, part.multiplicity.float())
    asked = torch.isin(data.edge_index[1], nodes)
    assert (seen[~asked] == 0).all()
    # Of 500 draws of 1 in k an edge is seen k times as often as it is drawn: 500 on average.
    spread = (500 * degree.float() / 4).sqrt()[data.edge_index[1]]
    assert ((seen - 500).abs() < 5 * spread.clamp(min=20))[asked].all()


def test_a_self_loop_is_always_there():
    data = large()
    sampler = NeighborSampler(data.edge_index, 200)
    part = sampler.sample(torch.tensor([0, 7, 8]), [2], torch.Generator().manual_seed(1))
    ends = part.nodes[part.edge_index].T.tolist()
    assert [0, 0] in ends
    assert [7, 7] in ends
    assert [8, 8] not in ends


@pytest.mark.parametrize("num_neighbors", [[3, 2], [2, 5]])
@pytest.mark.usefixtures("double")
def test_ranks_see_the_samples_of_one_process(num_neighbors):
    data = large()
    single = NeighborLoader(data, num_neighbors, 30, **OPTIONS, rank=0, world_size=1)
    shares = [
        NeighborLoader(data, num_neighbors, 30, **OPTIONS, rank=r, world_size=3) for r in range(3)
    ]
    networks = [model.double().eval() for model in models()]
    for epoch in (0, 4):
        for loader in (single, *shares):
            loader.sampler.set_epoch(epoch)
        served = []
        for whole, *parts in zip(single, *shares, strict=True):
            for model in networks:
                expected = model.outputs(whole)[whole.mask]
                for rank, part in enumerate(parts):
                    out = model.outputs(part)[part.mask]
                    torch.testing.assert_close(out, expected[rank::3], rtol=0, atol=1e-12)
            assert sum(len(part.x) for part in parts) <= 3 * len(whole.x)
            served.append(whole)
        assert sum(int(batch.mask.sum()) for batch in served) == int(data.mask.sum())


def test_a_resumed_epoch_draws_the_same_samples():
    data = large()
    first, second = (
        NeighborLoader(data, [3, 3], 20, **OPTIONS, rank=0, world_size=1) for _ in range(2)
    )
    first.sampler.set_epoch(2)
    batches = list(first)
    second.sampler.set_epoch(2)
    second.load_state_dict({"epoch": 2, "position": 2})
    for ours, expected in zip(second, batches[2:], strict=True):
        assert torch.equal(ours.edge_index, expected.edge_index)
        assert torch.equal(ours.x, expected.x)
    first.sampler.set_epoch(3)
    assert not torch.equal(next(iter(first)).x[:20], batches[0].x[:20])


def test_sparse_features_are_sampled_by_row():
    data = large()
    x = data.x * (torch.rand_like(data.x) < 0.3)
    options = {**OPTIONS, "rank": 0, "world_size": 1}
    dense = list(NeighborLoader(data._replace(x=x), [3, 3], 40, **options))
    for batch, expected in zip(
        NeighborLoader(data._replace(x=x.to_sparse_csr()), [3, 3], 40, **options),
        dense,
        strict=True,
    ):
        assert torch.equal(batch.x.to_dense(), expected.x)


def test_sampled_sums_are_unbiased():
    data = large(loops=False)
    model = LitGCN(5, 3, num_layers=1, dropout=0.0).double().eval()
    expected = model.outputs(data)
    nodes = torch.tensor([0, 3, 11])
    data = data._replace(mask=torch.zeros(200, dtype=torch.bool).index_fill(0, nodes, True))
    loader = NeighborLoader(data, [5], 3, **{**OPTIONS, "shuffle": False}, rank=0, world_size=1)
    outputs = []
    for epoch in range(300):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        outputs.append(model.outputs(batch)[:3])
    found = torch.stack(outputs)
    error = (found.mean(0) - expected[nodes]).abs()
    assert (error < 5 * found.std(0) / 300**0.5 + 1e-9).all()


def test_training_samples_and_evaluation_sees_everything():
    data = StochasticBlockModelDataModule(
        num_nodes=300, num_graphs=1, label_fraction=0.3, num_neighbors=[2, 2], batch_size=16
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert int(batch.mask.sum()) == 16
    assert batch.edge_index.shape[1] < data.split("train").edge_index.shape[1]
    (whole,) = data.val_dataloader()
    assert whole.multiplicity is None
    assert whole.edge_index is data.split("train").edge_index


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_neighbors": [0, 3]}, "num_neighbors must be positive, or -1 for all"),
        ({"num_neighbors": []}, "one per layer; got"),
    ],
)
def test_wrong_numbers_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        StochasticBlockModelDataModule(**wrong)


def test_graphs_with_targets_of_their_own_are_not_sampled():
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graphs = [Data(torch.randn(3, 2), edges, y=torch.tensor([k % 2])) for k in range(30)]
    with pytest.raises(InputError, match="a target is that of a graph; leave it out"):
        GraphDataModule(graphs, num_neighbors=[3, 3]).setup("fit")


def test_random_edges_without_loops_have_no_loop():
    edges = random_edges(20, 40)
    assert (NeighborSampler(edges, 20).loop == -1).all()


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("gat", ["--model.num_layers", "3"], "the network has 3 layers: give 3 numbers"),
        ("graph_network", [], "add --model.global_state false"),
    ],
)
def test_a_network_that_cannot_read_samples_is_refused(capsys, experiment, options, message):
    sampled = ["--config", "large_graph", "--data.num_nodes", "60", "--data.num_graphs", "1"]
    assert main(["fit", "--config", experiment, *sampled, *options]) == 2
    assert message in capsys.readouterr().err


def test_sampled_nodes_of_a_file_are_fitted_and_predicted_by_name(tmp_path):
    names = [f"n{k}" for k in range(60)]
    x = torch.rand(60)
    nodes = pd.DataFrame({"id": names, "x": x.numpy(), "y": (x > 0.5).int().numpy()})
    nodes.to_csv(tmp_path / "nodes.csv", index=False)
    pd.DataFrame({"a": names[:-1], "b": names[1:]}).to_csv(tmp_path / "edges.csv", index=False)
    options = ["--config", "gcn", "--config", "large_graph", "--config", "cpu"]
    options += ["--data", "GraphDataModule", "--data.path", str(tmp_path / "nodes.csv")]
    options += ["--data.edges_path", str(tmp_path / "edges.csv"), "--data.batch_size", "8"]
    options += ["--runs_dir", str(tmp_path / "runs"), "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *options, "--trainer.max_epochs", "1", "--run_id", "r"]) == 0
    assert main(["predict", *options, "--ckpt_path", "best"]) == 0
    table = pd.read_csv(tmp_path / "runs" / "gcn" / "r" / "predictions.csv")
    assert table["node"].tolist() == names
