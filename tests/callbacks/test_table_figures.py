"""Figures of tables say what the numbers do."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional import calibration_error

from callbacks.figures.table_scores import (
    calibration_figure,
    importance_figure,
    permutation_importance,
    ranking_figure,
    residual_figure,
)


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(3), 400)
    y = np.array([rng.choice(3, p=p) for p in probability])
    return probability, y


def test_calibration_is_that_of_the_metric(answers):
    probability, y = answers
    figure = calibration_figure(probability, y)
    error = calibration_error(
        torch.from_numpy(probability), torch.from_numpy(y), task="multiclass", num_classes=3
    )
    assert figure.axes[0].get_title() == f"calibration error {error:.4f}, 400 test rows"
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 400


def test_ranking_draws_each_class_against_the_rest(answers):
    probability, y = answers
    figure = ranking_figure(probability, y, ["a", "b", "c"])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    areas = [roc_auc_score(y == k, probability[:, k]) for k in range(3)]
    assert labels == [f"{name}: {area:.3f}" for name, area in zip("abc", areas, strict=True)]
    two = ranking_figure(probability[:, :2], np.minimum(y, 1), ["no", "yes"])
    labels = [text.get_text() for text in two.axes[1].get_legend().get_texts()]
    assert labels[0].startswith("yes:")
    assert labels[1] == "share of the class"
    ranking_figure(probability[:5], np.zeros(5, dtype=int), ["a", "b", "c"])


def test_importance_is_the_loss_of_what_a_column_tells():
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).double()
    y = 2 * x[:, 0] + x[:, 2] - x[:, 3]

    def predict(rows):
        return 2 * rows[:, 0] + rows[:, 2] - rows[:, 3]

    mean, std = permutation_importance(
        predict, lambda output: (output - y).square(), x, [[0], [1], [2, 3]]
    )
    np.testing.assert_allclose(mean, [8, 0, 4], rtol=0.1, atol=1e-9)
    assert std[1] == 0
    figure = importance_figure(mean, std, ["large", "idle", "pair"], "squared error", 2000)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "idle",
        "pair",
        "large",
    ]


def test_residuals_show_their_mean_and_spread():
    rng = np.random.default_rng(0)
    y, error = rng.normal(size=300), rng.normal(1, 2, 300)
    figure = residual_figure(y - error, y, "price")
    assert figure.axes[0].get_xlabel() == "predicted price"
    title = f"mean {error.mean():.3g}, standard deviation {error.std():.3g}, 300 test rows"
    assert figure.axes[1].get_title() == title
    residual_figure(np.zeros(3), np.zeros(3), "flat")
