"""Motif counts: the graphs, the target, and floors against a table of all pairs."""

import networkx
import numpy as np
import pytest

from datamodules import InputError, MotifCountDataModule


def test_graphs_are_unions_of_marked_triangles():
    data = MotifCountDataModule(num_test_graphs=32)
    test = data.split("test")
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(test.x)))
    graph.add_edges_from(test.edge_index.T.tolist())
    counts = np.zeros((32, 3), dtype=int)
    for nodes in networkx.connected_components(graph):
        assert len(nodes) == 3
        assert graph.subgraph(nodes).number_of_edges() == 3
        owners = set(test.graph[list(nodes)].tolist())
        assert len(owners) == 1
        counts[owners.pop(), int(test.x[list(nodes)].sum())] += 1
    assert (counts[:, 0] == 0).all()
    assert (counts[:, 1] == test.y[:, 0].numpy()).all()
    assert counts[:, 1:].min() == 1
    assert counts[:, 1:].max() == 4


@pytest.mark.parametrize("largest", [2, 3, 5])
def test_floors_are_conditional_variances(largest):
    data = MotifCountDataModule(max_copies=largest)
    pairs = [(a, b) for a in range(1, largest + 1) for b in range(1, largest + 1)]
    shares = np.array([a / (a + b) for a, b in pairs])
    a = np.array([pair[0] for pair in pairs], dtype=float)
    best = np.array([a[np.isclose(shares, share)].mean() for share in shares])
    assert data.floors["mean"] == pytest.approx(((a - best) ** 2).mean())
    assert data.floors["max"] == pytest.approx(a.var())
    assert data.optimum["test/mse"].value == 0


def test_test_set_has_the_floors_variance():
    data = MotifCountDataModule(num_test_graphs=1600)
    y = data.split("test").y[:, 0]
    assert y.var(correction=0).item() == pytest.approx(data.floors["max"], rel=1e-6)


def test_scale_is_the_training_targets():
    data = MotifCountDataModule(num_graphs=100)
    mean, std = data.standardization["y_scaler"]
    y = data.split("train").y
    assert (mean.item(), std.item()) == (y.mean().item(), y.std(correction=0).item())


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="max_copies must be at least 2, got 1"):
        MotifCountDataModule(max_copies=1)


def test_noise_adds_its_variance_to_every_floor():
    clean, noisy = MotifCountDataModule(), MotifCountDataModule(noise_std=0.5)
    for aggr, floor in clean.floors.items():
        assert noisy.floors[aggr] == pytest.approx(floor + 0.25)
    error = (noisy.split("test").y - clean.split("test").y).double()
    assert error.square().mean().item() == pytest.approx(noisy.optimum["test/mse"].value, rel=1e-5)
    train = (noisy.split("train").y - clean.split("train").y).double()
    assert train.std().item() == pytest.approx(0.5, rel=0.1)
    with pytest.raises(InputError, match="noise_std must not be negative"):
        MotifCountDataModule(noise_std=-1.0)
