"""Scores beside those of a table's run: trivial ones, and cheap strong methods to beat."""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules.base import Reference

Array = np.ndarray[Any, Any]
Scores = dict[str, dict[str, float]]

MAX_ROWS = 50_000
_MAX_CELLS = 5_000_000
_BOOSTING = "gradient boosting (HistGradientBoosting)"
_PENALTIES = tuple(10.0**power for power in range(-3, 5))


def trivial_scores(train: Tensor, test: Tensor, num_classes: int) -> dict[str, Reference]:
    """Scores of the most frequent class, or of the mean of the training targets.

    Args:
        train: Classes ``(rows,)`` or numbers ``(rows, K)`` of the training rows.
        test: Those of the test rows.
        num_classes: Number of classes; 0 for a regression.
    """
    if not num_classes:
        error, how = test - train.mean(0), "mean of the training targets"
        mse = error.square().mean().item()
        values = {"mse": mse, "rmse": mse**0.5, "mae": error.abs().mean().item()}
        return {f"test/{name}": Reference(value, how) for name, value in values.items()}
    counts = torch.bincount(train, minlength=num_classes)
    shares = counts.double() / counts.sum()
    accuracy = (test == counts.argmax()).double().mean().item()
    return {
        "test/accuracy": Reference(accuracy, "most frequent training class"),
        "test/cross_entropy": Reference(
            -shares[test].log().mean().item(), "class shares of the training rows"
        ),
    }


def rival_scores(
    numbers: tuple[Array, Array],
    codes: tuple[Array, Array],
    sizes: list[int],
    y: tuple[Array, Array],
    num_classes: int,
    weight: Array | None = None,
) -> Scores:
    """Scores of linear models and gradient boosting at scikit-learn's defaults.

    Args:
        numbers: Numbers of the rows to fit and to score, each ``(rows, columns)``.
        codes: Their categories, each ``(rows, columns)``.
        sizes: Number of codes of each category.
        y: Their targets, ``(rows,)`` classes or ``(rows, K)`` numbers.
        num_classes: Number of classes; 0 for a regression.
        weight: Weight of each row to fit, ``(rows,)``.

    Returns:
        Test scores by metric, then by method.
    """
    rows = np.random.default_rng(0).permutation(len(y[0]))[:MAX_ROWS]
    trees = [np.concatenate(pair, axis=1) for pair in zip(numbers, codes, strict=True)]
    mask = [False] * numbers[0].shape[1] + [size <= 255 for size in sizes]
    width = numbers[0].shape[1] + sum(sizes)
    few = rows[: max(_MAX_CELLS // max(width, 1), 100)]
    scaler = StandardScaler().fit(_indicators(numbers[0][few], codes[0][few], sizes))
    x, x_test = (
        scaler.transform(_indicators(n, c, sizes))
        for n, c in ((numbers[0][few], codes[0][few]), (numbers[1], codes[1]))
    )
    make = HistGradientBoostingClassifier if num_classes else HistGradientBoostingRegressor
    boosting = make(categorical_features=mask, random_state=0)
    linear = LogisticRegression(max_iter=500) if num_classes else RidgeCV(_PENALTIES)
    linear.fit(x, y[0][few], sample_weight=None if weight is None else weight[few])
    all_weight = None if weight is None else weight[rows]
    if num_classes:
        boosting.fit(trees[0][rows], y[0][rows], sample_weight=all_weight)
        fits = {"logistic regression": (linear, x_test), _BOOSTING: (boosting, trees[1])}
        return _class_scores(fits, y[1], num_classes)
    boosted = np.stack(
        [
            boosting.fit(trees[0][rows], target[rows], sample_weight=all_weight).predict(trees[1])
            for target in y[0].T
        ],
        axis=1,
    )
    straight = linear.predict(x_test).reshape(y[1].shape)
    errors = {"ridge regression": straight - y[1], _BOOSTING: boosted - y[1]}
    return {
        "test/mse": {name: float((error**2).mean()) for name, error in errors.items()},
        "test/mae": {name: float(np.abs(error).mean()) for name, error in errors.items()},
    }


def _class_scores(fits: dict[str, tuple[Any, Array]], y: Array, num_classes: int) -> Scores:
    scores: Scores = {"test/accuracy": {}, "test/cross_entropy": {}}
    for name, (model, x) in fits.items():
        probability = np.zeros((len(y), num_classes))
        probability[:, model.classes_] = model.predict_proba(x)
        scores["test/accuracy"][name] = float((probability.argmax(1) == y).mean())
        scores["test/cross_entropy"][name] = float(
            log_loss(y, probability, labels=np.arange(num_classes))
        )
    return scores


def _indicators(numbers: Array, codes: Array, sizes: list[int]) -> Array:
    parts = [numbers, *(np.eye(size)[code] for size, code in zip(sizes, codes.T, strict=True))]
    return np.concatenate(parts, axis=1)
