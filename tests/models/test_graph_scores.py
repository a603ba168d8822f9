"""Scores of candidate edges and of several labels, against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from lit_models.metrics.graph_scores import BinaryCrossEntropy, LinkScores


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_ranking_scores_are_scikit_learns(scale):
    torch.manual_seed(0)
    target = (torch.rand(211) < 0.4).long()
    # Rounded, so that some scores tie; large, so that a sigmoid would make more of them tie.
    margin = (scale * (torch.randn(211) + target)).round()
    logits = torch.stack([torch.zeros(211), margin], dim=1)
    metric = LinkScores(hits_at=7)
    for start in range(0, 211, 100):
        metric.update(logits[start : start + 100], target[start : start + 100])
    found = metric.compute()
    assert found["auc"].item() == pytest.approx(roc_auc_score(target, margin), abs=1e-6)
    expected = average_precision_score(target, margin)
    assert found["average_precision"].item() == pytest.approx(expected, abs=1e-6)
    bar = sorted(margin[target == 0].tolist())[-7]
    hits = sum(score > bar for score in margin[target == 1].tolist()) / int(target.sum())
    assert found["hits_at_7"].item() == pytest.approx(hits)


def test_hits_are_all_where_there_are_fewer_candidates():
    metric = LinkScores(hits_at=3)
    metric.update(torch.tensor([[0.0, 1.0], [0.0, 5.0]]), torch.tensor([1, 0]))
    assert metric.compute()["hits_at_3"] == 1


def test_unknown_labels_carry_no_cross_entropy():
    logits = torch.randn(17, 3)
    target = torch.randint(-1, 2, (17, 3))
    metric = BinaryCrossEntropy()
    metric.update(logits[:5], target[:5])
    metric.update(logits[5:], target[5:])
    known = target >= 0
    expected = log_loss(target[known], logits[known].double().sigmoid())
    assert metric.compute().item() == pytest.approx(expected, rel=1e-5)
