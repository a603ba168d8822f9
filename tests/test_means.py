"""Means over targets do not depend on how the targets lie in batches and on ranks."""

import pytest
import torch

from lit_models.metrics.means import WeightedMeans

LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], dtype=torch.float64)
TERMS = torch.tensor([3.0, 5.0, 9.0], dtype=torch.float64)


def filled(rows, terms, cuts):
    means = WeightedMeans()
    for a, b in cuts:
        part, term = rows[a:b], terms[a:b]
        number = torch.tensor(len(term))
        mean = term.mean() if len(term) else torch.tensor(0.0)
        means.add(part.mean(), len(part), {"twice": 2 * part.mean()}, {"term": (mean, number)})
    return means


@pytest.mark.parametrize("cuts", [[(0, 7)], [(0, 3), (3, 4), (4, 7)], [(0, 1), (1, 7)]])
def test_means_are_over_targets(cuts):
    found = filled(LOSSES, TERMS, cuts).take(lambda value: value)
    assert found["term"].item() == pytest.approx(TERMS.mean().item(), abs=1e-12)
    assert found["loss"].item() == pytest.approx((LOSSES.mean() + TERMS.mean()).item(), abs=1e-12)
    assert found["twice"].item() == pytest.approx(2 * LOSSES.mean().item(), abs=1e-12)


def test_ranks_add_up():
    ranks = [filled(LOSSES[a:b], TERMS[a:b], [(0, b - a)]) for a, b in ((0, 2), (2, 7))]
    other = dict(ranks[1].sums)
    names = iter(ranks[0].sums)
    found = ranks[0].take(lambda value: value + other[next(names)])
    assert found["loss"].item() == pytest.approx((LOSSES.mean() + TERMS.mean()).item(), abs=1e-12)


def test_a_taking_starts_afresh():
    means = filled(LOSSES, TERMS, [(0, 7)])
    means.take(lambda value: value)
    assert means.sums == {}
    assert means.take(lambda value: value) == {}
