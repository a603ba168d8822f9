"""Belief propagation against enumeration of all classes."""

import itertools

import pytest
import torch

from datamodules.laws.belief_propagation import fixed_point, reversed_edges, sweeps

AFFINITY = {
    2: torch.tensor([[5.0, 1.0], [1.0, 3.0]]).double(),
    3: torch.tensor([[5.0, 1.0, 2.0], [1.0, 4.0, 0.5], [2.0, 0.5, 3.0]]).double(),
}


def enumerated(pairs, evidence, affinity, absent=()):
    """Exact posterior over all K^N classes; absent pairs say 1 - c / n."""
    n, k = evidence.shape
    total = torch.zeros(n, k).double()
    for classes in itertools.product(range(k), repeat=n):
        log = sum(evidence[i, z] for i, z in enumerate(classes))
        log = log + sum(affinity[classes[i], classes[j]].log() for i, j in pairs)
        log = log + sum((1 - affinity[classes[i], classes[j]] / n).log() for i, j in absent)
        for i, z in enumerate(classes):
            total[i, z] += log.exp()
    return total / total.sum(1, keepdim=True)


def both(pairs):
    edges = torch.tensor(pairs).T
    return torch.cat([edges, edges.flip(0)], dim=1)


TREE = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (0, 6)]


@pytest.mark.parametrize("k", [2, 3])
def test_fixed_point_on_a_tree_is_exact(k):
    evidence = torch.randn(7, k).double()
    *_, belief = fixed_point(sweeps(both(TREE), evidence, AFFINITY[k]), 1e-14)
    torch.testing.assert_close(belief, enumerated(TREE, evidence, AFFINITY[k]), rtol=0, atol=1e-12)


def test_known_classes_are_certain():
    evidence = torch.randn(7, 2).double()
    evidence[3] = torch.tensor([0.0, -torch.inf])
    *_, belief = fixed_point(sweeps(both(TREE), evidence, AFFINITY[2]), 1e-14)
    expected = enumerated(TREE, evidence, AFFINITY[2])
    torch.testing.assert_close(belief, expected, rtol=0, atol=1e-12)
    assert belief[3].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_sweep_sees_one_step_further(depth):
    """After t sweeps a path's end knows the evidence and edges of t steps, and no more."""
    path = [(i, i + 1) for i in range(6)]
    evidence = torch.randn(7, 2).double()
    belief = next(itertools.islice(sweeps(both(path), evidence, AFFINITY[2]), depth, None))
    seen = enumerated(path[:depth], evidence[: depth + 1], AFFINITY[2])
    torch.testing.assert_close(belief[0], seen[0], rtol=0, atol=1e-12)


def test_field_stands_for_the_pairs_without_an_edge():
    torch.manual_seed(3)
    pairs = [(0, 1), (2, 3), (4, 5), (1, 6), (7, 8), (3, 9), (8, 9)]
    absent = [p for p in itertools.combinations(range(10), 2) if p not in pairs]
    evidence = 0.5 * torch.randn(10, 2).double()
    affinity = torch.tensor([[3.0, 1.0], [1.0, 1.5]]).double()
    exact = enumerated(pairs, evidence, affinity, absent)
    graph = torch.zeros(10, dtype=torch.long)
    *_, without = fixed_point(sweeps(both(pairs), evidence, affinity), 1e-12)
    *_, with_field = fixed_point(sweeps(both(pairs), evidence, affinity, graph), 1e-12)
    assert (with_field - exact).abs().max() < 0.06
    assert (without - exact).abs().max() > 3 * (with_field - exact).abs().max()


def test_field_is_each_graphs_own():
    evidence = torch.randn(14, 2).double()
    edges = both(TREE)
    together = torch.cat([edges, edges + 7], dim=1)
    graph = torch.arange(2).repeat_interleave(7)
    joint = list(itertools.islice(sweeps(together, evidence, AFFINITY[2], graph), 5))
    single = torch.zeros(7, dtype=torch.long)
    for part in (0, 1):
        rows = slice(7 * part, 7 * part + 7)
        alone = itertools.islice(sweeps(edges, evidence[rows], AFFINITY[2], single), 5)
        for ours, theirs in zip(joint, alone, strict=True):
            torch.testing.assert_close(ours[rows], theirs, rtol=0, atol=1e-12)


def test_reversed_edges():
    edges = both(TREE)[:, torch.randperm(12)]
    assert torch.equal(edges[:, reversed_edges(edges, 7)], edges.flip(0))
