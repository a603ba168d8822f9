"""The replayed generator is scikit-learn's, and its Bayes classifier is the best there is."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import make_classification

from datamodules import ClassificationDataModule, InputError


@pytest.mark.parametrize("num_classes", [2, 5])
def test_rows_are_scikit_learns(num_classes):
    data = ClassificationDataModule(num_samples=503, num_classes=num_classes, seed=7)
    x, y = make_classification(
        n_samples=503,
        n_features=10,
        n_informative=8,
        n_redundant=2,
        n_classes=num_classes,
        flip_y=0.15,
        class_sep=0.8,
        random_state=7,
    )
    train, val = data.split("train"), data.split("val")
    ours = np.concatenate([train.x.numpy(), val.x.numpy()])
    assert len(ours) == 503
    order, theirs = np.lexsort(ours.T), x.astype(np.float32)
    np.testing.assert_array_equal(ours[order], theirs[np.lexsort(theirs.T)])
    labels = np.concatenate([train.y.numpy(), val.y.numpy()])[order]
    np.testing.assert_array_equal(labels, y[np.lexsort(theirs.T)])


def test_population_explains_the_rows():
    """Moments of the replayed law agree with a large draw of scikit-learn's."""
    data = ClassificationDataModule(num_samples=40_000, num_classes=3, seed=11, flip_y=0.0)
    population = data.population
    rows = np.concatenate([data.split("train").x.numpy(), data.split("val").x.numpy()])
    fresh, _ = population.sample(40_000, np.random.default_rng(0))
    np.testing.assert_allclose(rows.mean(0), fresh.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(fresh.T), atol=0.25)


def test_posterior_is_bayes_rule():
    data = ClassificationDataModule(num_samples=100, num_classes=3, seed=3, flip_y=0.2)
    population = data.population
    x, _ = population.sample(50, np.random.default_rng(1))
    unshuffled = np.empty_like(x)
    unshuffled[:, population.order] = x
    joint = np.zeros((50, 3))
    for k in range(6):
        factor = population.factors[k]
        law = multivariate_normal(population.centers[k], factor.T @ factor)
        joint[:, k % 3] += population.weights[k] * law.pdf(unshuffled[:, :8])
    expected = 0.8 * joint / joint.sum(1, keepdims=True) + 0.2 / 3
    np.testing.assert_allclose(population.posterior(x), expected, rtol=1e-6)


def test_bayes_scores_are_those_of_its_predictions():
    population = ClassificationDataModule(num_classes=5).population
    accuracy, cross_entropy = population.bayes(100_000, seed=0)
    x, y = population.sample(100_000, np.random.default_rng(5))
    p = population.posterior(x)
    assert (p.argmax(1) == y).mean() == pytest.approx(accuracy, abs=0.004)
    assert -np.log(p[np.arange(len(y)), y]).mean() == pytest.approx(cross_entropy, abs=0.01)


def test_known_optimum_of_the_notes_task():
    optimum = ClassificationDataModule(num_classes=2).optimum
    assert optimum["test/accuracy"].value == pytest.approx(0.9183, abs=5e-4)
    assert optimum["test/cross_entropy"].value == pytest.approx(0.2772, abs=1e-3)


def test_splits_are_stratified_disjoint_and_repeatable():
    first, second = (ClassificationDataModule(num_samples=400, num_test=50) for _ in range(2))
    for split in ("train", "val", "test"):
        assert torch.equal(first.split(split).x, second.split(split).x)
    shares = [first.split(s).y.float().mean() for s in ("train", "val")]
    assert abs(shares[0] - shares[1]) < 0.01
    rows = torch.cat([first.split(s).x for s in ("train", "val", "test")])
    assert len(torch.unique(rows, dim=0)) == len(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"flip_y": 1.5}, "flip_y"),
        ({"class_sep": -1.0}, "class_sep must be positive and finite, got -1.0"),
        ({"num_informative": 11}, "num_informative"),
        ({"num_samples": 10}, "num_samples must be at least 40, got 10"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ClassificationDataModule(**arguments)
