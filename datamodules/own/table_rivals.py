"""Cheap strong methods on the rows of a table: what a run has to beat."""

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

Array = np.ndarray[Any, Any]
Scores = dict[str, dict[str, float]]

MAX_ROWS = 50_000
_MAX_CELLS = 20_000_000
_PENALTIES = tuple(10.0**power for power in range(-3, 5))


def rival_scores(
    numbers: tuple[Array, Array],
    codes: tuple[Array, Array],
    sizes: list[int],
    y: tuple[Array, Array],
    num_classes: int,
) -> Scores:
    """Scores of linear models and gradient boosting at scikit-learn's defaults.

    Args:
        numbers: Numbers of the rows to fit and to score, each ``(rows, columns)``.
        codes: Their categories, each ``(rows, columns)``.
        sizes: Number of codes of each category.
        y: Their targets, ``(rows,)``.
        num_classes: Number of classes; 0 for a regression.

    Returns:
        Test scores by metric, then by method.
    """
    rows = np.random.default_rng(0).permutation(len(y[0]))[:MAX_ROWS]
    fit_y = y[0][rows]
    trees = [np.concatenate(pair, axis=1) for pair in zip(numbers, codes, strict=True)]
    mask = [False] * numbers[0].shape[1] + [size <= 255 for size in sizes]
    width = numbers[0].shape[1] + sum(sizes)
    few = rows[: max(_MAX_CELLS // max(width, 1), 100)]
    lines = [_indicators(n, c, sizes) for n, c in zip(numbers, codes, strict=True)]
    scaler = StandardScaler().fit(lines[0][few])
    x, x_test = scaler.transform(lines[0][few]), scaler.transform(lines[1])
    boosting = HistGradientBoostingClassifier if num_classes else HistGradientBoostingRegressor
    boosted = boosting(categorical_features=mask, random_state=0).fit(trees[0][rows], fit_y)
    if num_classes:
        linear = LogisticRegression(max_iter=500).fit(x, fit_y[: len(few)])
        fits = {
            "logistic regression": (linear, x_test),
            "gradient boosting (HistGradientBoosting)": (boosted, trees[1]),
        }
        return _class_scores(fits, y[1], num_classes)
    ridge = RidgeCV(_PENALTIES).fit(x, fit_y[: len(few)])
    errors = {
        "ridge regression": ridge.predict(x_test) - y[1],
        "gradient boosting (HistGradientBoosting)": boosted.predict(trees[1]) - y[1],
    }
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
