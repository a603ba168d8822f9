import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from datamodules.batches import GraphBatch
from lit_models import LitGCN, LitGraphNetwork
from lit_models.families.linear_share import LinearShare
from lit_models.layers.feature_regression import FeatureRegression


def rows(count=60, features=5):
    generator = torch.Generator().manual_seed(0)
    x = 1000 + 7 * torch.randn(count, features, generator=generator)
    x[:, 1] = 3.0  # a constant
    scores = torch.randn(count, 3, generator=generator) + x[:, [0, 2, 3]] / 5
    return x, scores


@pytest.mark.parametrize("num_classes", [2, 3])
def test_classes_are_scikit_learns(num_classes):
    x, scores = rows()
    y = scores[:, :num_classes].argmax(1)
    model = FeatureRegression(5, num_classes).double()
    model.fit(x, y, "classification")
    scaled = StandardScaler().fit_transform(x.double())
    if num_classes == 2:  # two columns of half the length each: half the penalty
        expected = LogisticRegression(C=2.0, max_iter=1000, tol=1e-8).fit(scaled, y)
    else:
        expected = LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(scaled, y)
    found = model(x.double()).softmax(1)
    np.testing.assert_allclose(found, expected.predict_proba(scaled), atol=1e-3)


def test_numbers_are_the_ridge_regressions_and_unknown_ones_have_no_part():
    x, scores = rows()
    y = scores.double()
    y[:20, 0] = torch.nan
    model = FeatureRegression(5, 3).double()
    model.fit(x, y, "regression")
    scaled = StandardScaler().fit(x.double()).transform(x.double())
    for column, first in ((0, 20), (1, 0)):
        centred = scaled[first:]
        expected = Ridge(1.0).fit(centred, y[first:, column]).predict(scaled)
        np.testing.assert_allclose(model(x.double())[:, column], expected, atol=1e-5)


def test_unknown_labels_have_no_part():
    x, scores = rows()
    y = (scores > scores.mean(0)).double()
    y[:20, 0] = torch.nan
    model = FeatureRegression(5, 3).double()
    model.fit(x, y, "multilabel")
    scaled = StandardScaler().fit_transform(x.double())
    for column, first in ((0, 20), (1, 0)):
        fitted = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaled[first:], y[first:, column])
        expected = fitted.predict_proba(scaled)[:, 1]
        np.testing.assert_allclose(model(x.double())[:, column].sigmoid(), expected, atol=1e-3)


def test_features_of_a_graph_are_means_sums_and_sizes():
    x = torch.tensor([[1.0], [3.0], [5.0]])
    edges = torch.tensor([[0, 1], [1, 0]])
    graph, mask = torch.tensor([0, 0, 2]), torch.ones(3, dtype=torch.bool)
    batch = GraphBatch(x, edges, None, torch.zeros(3), mask, graph, num_graphs=3)
    expected = [[2.0, 4.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 1.0, 0.0]]
    assert LinearShare(1, 2, "graph").features(batch).tolist() == expected


@pytest.mark.parametrize("best", [0.0, 0.3, 1.0])
def test_the_share_is_the_best_on_validation(best):
    share = LinearShare(1, 1)
    network, linear = torch.randn(50, 1), torch.randn(50, 1)
    target = network + best * (linear - network)
    kept = [(network[:20], linear[:20], target[:20]), (network[20:], linear[20:], target[20:])]
    share.choose(kept, lambda a, b: (F.mse_loss(a, b), len(a)), lambda value: value)
    assert share.share.item() == pytest.approx(best)


class Data:
    """A datamodule of one graph whose features tell its classes."""

    def __init__(self, batch):
        self.batch = batch

    def fitting_batches(self):
        return iter([self.batch])


def a_batch():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    edges = torch.randint(40, (2, 80), generator=torch.Generator().manual_seed(2))
    return GraphBatch(x, edges, None, (x[:, 0] > 0).long(), torch.ones(40, dtype=torch.bool))


def test_the_scores_are_the_mixture_wherever_they_are_read():
    batch = a_batch()
    model = LitGCN(3, 2, dropout=0.0, linear_model=True).eval()
    model.take_scale(Data(batch))
    network = model.outputs(batch)
    linear = model.linear.model(batch.x)
    assert ((linear[:, 1] > linear[:, 0]) == (batch.y == 1)).float().mean() > 0.9
    torch.testing.assert_close(model(batch.x, batch.edge_index), network)
    model.linear.share.fill_(0.7)
    mixed = 0.3 * network + 0.7 * linear
    torch.testing.assert_close(model(batch.x, batch.edge_index), mixed)
    torch.testing.assert_close(model.predict_step(batch)["probability"], mixed.softmax(1))
    torch.testing.assert_close(model.eval_step(batch).loss, F.cross_entropy(mixed, batch.y))
    torch.testing.assert_close(model.step(batch).loss, F.cross_entropy(network, batch.y))
    assert model.linear.share in model.state_dict().values()


def test_validation_is_no_worse_than_either(monkeypatch):
    batch = a_batch()
    model = LitGCN(3, 2, linear_model=True).eval()
    model.take_scale(Data(batch))
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    model.on_validation_epoch_start()
    model.validation_step(batch, 0)
    seen = []
    monkeypatch.setattr(model, "_accumulate", lambda stage, output: seen.append(output.loss))
    monkeypatch.setattr("lit_models.base.LitModule.on_validation_epoch_end", lambda self: None)
    model.on_validation_epoch_end()
    alone = F.cross_entropy(model.outputs(batch), batch.y)
    linear = F.cross_entropy(model.linear.model(batch.x), batch.y)
    assert seen[0] <= min(alone, linear)


def test_features_of_an_edge_are_its_own_products_and_distances():
    x, edges = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0], [1]])
    mask, attributes = torch.ones(1, dtype=torch.bool), torch.tensor([[9.0]])
    batch = GraphBatch(x, edges, None, torch.zeros(1), mask, edge_attr=attributes)
    model = LitGraphNetwork(2, 2, "edge", "classification", 1, linear_model=True)
    assert model.linear.features(batch).tolist() == [[9.0, 3.0, -2.0, 2.0, 3.0]]
    assert model.mixed(batch).shape == (1, 2)
