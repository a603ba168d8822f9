"""The linear or additive solution on a table's training rows, where a network for tables starts.

Penalties are those of ridge and of logistic regression. The solution with the least loss on the
validation rows is taken; of a small table, on the validation rows and on the training rows in five
folds: some dozens of rows alone would be deaf to what is noise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import log_loss, mean_poisson_deviance
from torch import Tensor

from datamodules.batches import SupervisedBatch

Array = np.ndarray[Any, Any]
_MAX_CELLS = 1_500_000
# Columns beside the plain ones enter an iterative solution of so many products a step, at most.
_MAX_WORK = 4_000_000
# By so much must bends, or what neighbours say, beat a line, or they are noise.
_PRICE = 1.02
_MAX_FOLDED, _NUM_FOLDS = 600_000, 5
_PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


class Rows(NamedTuple):
    """Standardised columns ``(rows, D)``, targets and weights as models' losses take them."""

    x: Array
    y: Array
    weight: Array | None = None


def first_rows(datamodule: Any, split: str, width: int) -> SupervisedBatch:
    """Rows of a split as models see them, at most some millions of cells, in random order.

    Args:
        datamodule: The data.
        split: The split.
        width: Number D of columns.
    """
    data = datamodule.split(split)
    rows, most = torch.arange(len(data.x)), _MAX_CELLS // width
    if len(rows) > most:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most]
    codes, weight = (None if f is None else f[rows] for f in (data.categories, data.weight))
    head = SupervisedBatch(data.x[rows], data.y[rows], codes, weight)
    return head if codes is None else datamodule.one_hot(head)


def plain_rows(x: Tensor, y: Tensor, weight: Tensor | None) -> Rows:
    """Tensors as scikit-learn takes them."""
    return Rows(x.double().numpy(), y.numpy(), None if weight is None else weight.numpy())


def linear_solution(
    kind: str, train: Rows, val: Rows, num_outputs: int, groups: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Weight ``(K, D)`` and bias ``(K,)`` of the solution with the least validation loss.

    Args:
        kind: ``logistic``, ``ridge`` or ``poisson``.
        train: The training rows.
        val: The validation rows.
        num_outputs: Number K of outputs.
        groups: Sizes of the groups of columns in order: the first is used, each of the others
            where it lowers the loss by more than its price.
    """
    solve = {"logistic": _logistic, "ridge": _ridge, "poisson": _poisson}[kind]
    width = train.x.shape[1]
    loss, weight, bias = np.inf, np.zeros((num_outputs, width)), np.zeros(num_outputs)
    for chosen in _choices(groups):
        columns = np.concatenate([np.arange(width)[part] for part in chosen])
        work = len(train.x) * len(columns) * (1 if kind == "ridge" else num_outputs)
        if len(chosen) > 1 and work > _MAX_WORK:
            continue
        part, part_val = (rows._replace(x=rows.x[:, columns]) for rows in (train, val))
        fold = _folds(kind, part, num_outputs)
        for penalty in _PENALTIES[2 * (kind == "logistic") :]:  # separable classes know no end
            found = solve(penalty, part, part_val, num_outputs)
            judged = [(found[0], len(val.y))]
            for k in np.unique(fold):
                rest, held = _take(part, fold != k), _take(part, fold == k)
                judged.append((solve(penalty, rest, held, num_outputs)[0], len(held.y)))
            mean = float(np.average([j[0] for j in judged], weights=[j[1] for j in judged]))
            mean *= _PRICE ** (len(chosen) - 1)
            if mean < loss:
                loss, bias = mean, found[2]
                weight = np.zeros((num_outputs, width))
                weight[:, columns] = found[1]
    return torch.from_numpy(weight), torch.from_numpy(bias)


def _choices(groups: Sequence[int]) -> list[list[slice]]:
    """The first group of columns, alone and with every selection of the others."""
    ends = np.cumsum(groups).tolist()
    first, *others = (slice(end - size, end) for end, size in zip(ends, groups, strict=True))
    chosen = [[first]]
    for group in others:
        chosen += [[*before, group] for before in chosen if group.stop > group.start]
    return chosen


def _folds(kind: str, train: Rows, num_outputs: int) -> Array:
    """Fold of each training row; none of a large table, or where a fold might lack a class."""
    none = np.zeros(0, dtype=np.int64)
    costs = 1 if kind == "ridge" else num_outputs
    if train.x.size * costs > _MAX_FOLDED or len(train.y) < 2 * _NUM_FOLDS:
        return none
    if kind != "logistic":
        return np.arange(len(train.y)) % _NUM_FOLDS
    counts = np.bincount(train.y, minlength=num_outputs)
    if counts.min() < 2 * _NUM_FOLDS:
        return none
    fold = np.empty(len(train.y), dtype=np.int64)
    for k, count in enumerate(counts):
        fold[train.y == k] = np.arange(count) % _NUM_FOLDS
    return fold


def _take(rows: Rows, kept: Array) -> Rows:
    weight = None if rows.weight is None else rows.weight[kept]
    return Rows(rows.x[kept], rows.y[kept], weight)


def _ridge(penalty: float, train: Rows, val: Rows, num_outputs: int) -> tuple[float, Array, Array]:
    fit = Ridge(alpha=penalty).fit(train.x, train.y, sample_weight=train.weight)
    errors = (fit.predict(val.x).reshape(val.y.shape) - val.y) ** 2
    loss = float(np.average(errors.mean(axis=1), weights=val.weight))
    return loss, fit.coef_.reshape(num_outputs, -1), np.atleast_1d(fit.intercept_)


def _logistic(
    penalty: float, train: Rows, val: Rows, num_outputs: int
) -> tuple[float, Array, Array]:
    fit = LogisticRegression(C=1 / penalty, max_iter=200)
    fit.fit(train.x, train.y, sample_weight=train.weight)
    probability = fit.predict_proba(val.x)
    loss = log_loss(val.y, probability, sample_weight=val.weight, labels=fit.classes_)
    weight, bias = fit.coef_, fit.intercept_
    if num_outputs == 2:  # one logit, of the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.array([-1, 1]) * bias / 2
    return float(loss), weight, bias


def _poisson(
    penalty: float, train: Rows, val: Rows, num_outputs: int
) -> tuple[float, Array, Array]:
    total, weights, biases = 0.0, [], []
    for k in range(num_outputs):
        fit = PoissonRegressor(alpha=penalty / len(train.x), max_iter=200)
        fit.fit(train.x, train.y[:, k], sample_weight=train.weight)
        rate = np.clip(fit.predict(val.x), 1e-12, 1e12)
        total += float(mean_poisson_deviance(val.y[:, k], rate, sample_weight=val.weight))
        weights.append(fit.coef_)
        biases.append(fit.intercept_)
    return total, np.stack(weights), np.array(biases)
