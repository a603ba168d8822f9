"""The block model's draws, its splits, and the tasks built on it."""

import math

import numpy as np
import pytest
import torch

from datamodules import BlockModelLinksDataModule, InputError, StochasticBlockModelDataModule
from datamodules.tasks.block_model import draw_pairs


def test_pairs_are_joined_with_their_probability():
    rng = np.random.default_rng(0)
    classes = torch.tensor([0, 0, 0, 1, 1])
    affinity = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double()
    counts = torch.zeros(5, 5)
    num_draws = 4000
    for _ in range(num_draws):
        first, second = draw_pairs(classes, affinity, rng)
        assert (first < second).all()
        counts[first, second] += 1
    for i in range(5):
        for j in range(i + 1, 5):
            p = affinity[classes[i], classes[j]].item() / 5
            assert abs(counts[i, j] / num_draws - p) < 4.5 * math.sqrt(p * (1 - p) / num_draws)


def test_graphs_have_the_degrees_asked_for():
    data = StochasticBlockModelDataModule(num_blocks=4, degree_in=20.0, num_test_graphs=25)
    test = data.split("test")
    source, target = test.edge_index
    assert (test.graph[source] == test.graph[target]).all()
    assert test.edge_index.shape[1] / len(test.x) == pytest.approx(8.0, rel=0.02)
    within = (test.y[source] == test.y[target]).float().mean().item()
    assert within == pytest.approx(20 / 32, abs=0.01)


@pytest.mark.parametrize(
    ("blocks", "degree_in", "expected"),
    [
        (2, 12.0, {0: 0.760, 1: 0.867, 2: 0.910, 3: 0.925, 4: 0.928, None: 0.929}),
        (4, 20.0, {0: 0.552, 1: 0.738, 2: 0.844, 3: 0.886, 4: 0.901, None: 0.908}),
    ],
)
def test_belief_propagation_reaches_the_known_accuracies(blocks, degree_in, expected):
    data = StochasticBlockModelDataModule(num_blocks=blocks, degree_in=degree_in)
    for depth, accuracy in expected.items():
        assert data.floors[depth].accuracy == pytest.approx(accuracy, abs=0.006), depth
    losses = [data.floors[depth].cross_entropy for depth in (0, 1, 2, 3, 4, None)]
    assert losses == sorted(losses, reverse=True)


def test_features_alone_reach_the_closed_form():
    data = StochasticBlockModelDataModule(num_test_graphs=40)
    closed = 0.5 * (1 + math.erf(math.sqrt(0.5) / math.sqrt(2)))
    assert data.baseline["test/accuracy"].value == pytest.approx(closed, abs=0.006)


def test_depth_chooses_the_optimum():
    arguments = {"num_nodes": 200, "num_test_graphs": 3}
    for depth in (2, None):
        data = StochasticBlockModelDataModule(depth=depth, **arguments)
        assert data.optimum["test/accuracy"].value == data.floors[depth].accuracy


def test_splits_are_repeatable_and_disjoint():
    first, second = (StochasticBlockModelDataModule(num_nodes=50, num_graphs=3) for _ in range(2))
    for split in ("train", "val", "test"):
        for ours, theirs in zip(first.make_split(split), second.make_split(split), strict=True):
            same = torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs
            assert same
    rows = [set(map(tuple, first.split(s).x.tolist())) for s in ("train", "val", "test")]
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]


def test_transductive_splits_share_the_graph_and_no_node():
    data = StochasticBlockModelDataModule(num_nodes=300, num_graphs=1, label_fraction=0.1)
    splits = [data.split(s) for s in ("train", "val", "test")]
    assert all(torch.equal(s.edge_index, splits[0].edge_index) for s in splits)
    assert [int(s.mask.sum()) for s in splits] == [30, 15, 255]
    assert (sum(s.mask.int() for s in splits) == 1).all()
    assert data.num_train == 30


def test_known_labels_help():
    same = {"num_graphs": 1, "num_nodes": 4000, "feature_shift": 0.3}
    few = StochasticBlockModelDataModule(label_fraction=0.01, **same)
    many = StochasticBlockModelDataModule(label_fraction=0.5, **same)
    assert many.floors[None].cross_entropy < few.floors[None].cross_entropy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_graphs": 0}, "num_graphs must be at least 1, got 0"),
        ({"num_blocks": 1}, "num_blocks must be at least 2, got 1"),
        ({"num_nodes": 3}, "num_nodes must be at least 4, got 3"),
        ({"degree_in": 0.0}, "degree_in must lie between 0 and num_nodes=1000, got 0.0"),
        ({"degree_out": 2000.0}, "degree_out must lie between 0 and num_nodes=1000"),
        ({"label_fraction": 0.1}, "give num_graphs=1"),
        ({"label_fraction": 0.9, "num_graphs": 1}, "label_fraction must lie in"),
        ({"depth": -1}, "depth must be at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        StochasticBlockModelDataModule(**arguments)


def test_a_class_without_a_known_node_is_named():
    data = StochasticBlockModelDataModule(
        num_nodes=40, num_blocks=8, degree_in=20.0, num_graphs=1, label_fraction=0.05
    )
    with pytest.raises(InputError, match="no training node of class"):
        data.setup("fit")


def test_candidates_are_hidden_edges_and_pairs_without_one():
    data = BlockModelLinksDataModule(num_nodes=200, num_graphs=2, hidden_fraction=0.25)
    train = data.split("train")
    n = len(train.x)
    observed = train.edge_index[:, train.edge_weight == 1]
    candidates = train.edge_index[:, train.mask]
    y = train.y[train.mask]
    assert y.float().mean() == 0.5
    hidden_share = y.sum() / (y.sum() + observed.shape[1] / 2)
    assert hidden_share.item() == pytest.approx(0.25, abs=0.01)
    keys = lambda edges: set((edges.min(0).values * n + edges.max(0).values).tolist())  # noqa: E731
    assert len(keys(candidates)) == candidates.shape[1]
    assert not keys(candidates) & keys(observed)
    assert train.mask.sum() * 2 == (train.edge_weight == 0).sum()


def test_candidate_probabilities_are_calibrated():
    data = BlockModelLinksDataModule(num_test_graphs=20)
    test = data.split("test")
    probability, y = data._probabilities[None], test.y[test.mask].double()
    for low in (0.1, 0.3, 0.5, 0.6):
        inside = (probability >= low) & (probability < low + 0.1)
        if inside.sum() > 300:
            error = y[inside].mean() - probability[inside].mean()
            assert abs(error) < 5 * 0.5 / inside.sum().item() ** 0.5
    assert abs(y.mean() - probability.mean()) < 0.02
    assert data.optimum["test/cross_entropy"].value < data.baseline["test/cross_entropy"].value


def test_candidate_odds_with_known_classes_are_bayes():
    """With classes as good as known: c(z, z') / mean c against one."""
    data = BlockModelLinksDataModule(feature_shift=20.0, num_test_graphs=4)
    test = data.split("test")
    source, target = test.edge_index[:, test.mask]
    same = test.x[source].argmax(1) == test.x[target].argmax(1)
    expected = torch.where(same, 15 / 23, 1 / 9).double()
    torch.testing.assert_close(data._probabilities[None], expected, rtol=0, atol=1e-6)
