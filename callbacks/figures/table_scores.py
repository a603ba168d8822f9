"""Figures of how good a table's predictions are, from arrays: no model and no Trainer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from torch import Tensor

from callbacks.figures.style import part_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
_MAX_CURVES = 8
_MAX_BARS = 20


def calibration_figure(
    probability: Array, y: Array, num_bins: int = 15, num_all: int = 0
) -> "Figure":
    """Share of right answers against the probability of the answer, and how many have which.

    Args:
        probability: Probabilities of classes, ``(rows, K)``.
        y: True classes, ``(rows,)``.
        num_bins: Bins of equal width.
        num_all: Rows there are, where these are the first of them.
    """
    from matplotlib.figure import Figure

    confidence, right = probability.max(1), probability.argmax(1) == y
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    there = counts > 0
    mean = np.bincount(bins, confidence, num_bins)[there] / counts[there]
    share = np.bincount(bins, right, num_bins)[there] / counts[there]
    error = float((np.abs(share - mean) * counts[there]).sum() / len(y))
    figure = Figure(figsize=(4.8, 5.4), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    spread = np.sqrt(share * (1 - share) / counts[there])
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="as it says")
    axes.errorbar(mean, share, spread, fmt="o-", capsize=2, label="share right ± standard error")
    title = f"calibration error {error:.4f}, {part_of(len(y), num_all, 'test rows')}"
    axes.set(ylabel="share of right answers", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    below.bar((np.arange(num_bins) + 0.5) / num_bins, counts, 0.9 / num_bins)
    below.set(xlabel="probability of the answer", ylabel="rows", xlim=(0, 1.02))
    return figure


def ranking_figure(
    probability: Array, y: Array, names: Sequence[str], num_all: int = 0
) -> "Figure":
    """ROC and precision-recall curves: of the second of two classes, else of each against the rest.

    Args:
        probability: Probabilities of classes, ``(rows, K)``.
        y: True classes, ``(rows,)``.
        names: Names of the classes.
        num_all: Rows there are, where these are the first of them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    roc, recall = figure.subplots(1, 2)
    classes = [1] if len(names) == 2 else [k for k in range(len(names)) if (y == k).any()]
    shown = part_of(len(y), num_all, "test rows")
    if len(classes) > _MAX_CURVES:
        shown += f", {part_of(_MAX_CURVES, len(classes), 'classes')}"
    figure.suptitle(shown)
    for k in classes[:_MAX_CURVES]:
        true, score = y == k, probability[:, k]
        if true.all() or not true.any():
            continue
        false_rate, true_rate, _ = roc_curve(true, score)
        roc.plot(false_rate, true_rate, label=f"{names[k]}: {roc_auc_score(true, score):.3f}")
        precision, found, _ = precision_recall_curve(true, score)
        average = average_precision_score(true, score)
        recall.step(found, precision, where="post", label=f"{names[k]}: {average:.3f}")
        if len(classes) == 1:
            recall.axhline(true.mean(), color="black", linewidth=1, label="share of the class")
    roc.plot([0, 1], [0, 1], color="black", linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, area")
    recall.set(xlabel="recall", ylabel="precision", title="precision and recall, average precision")
    for axes in (roc, recall):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def residual_figure(
    prediction: Array, y: Array, name: str, num_drawn: int = 1000, num_all: int = 0
) -> "Figure":
    """Errors against predictions, and their distribution beside a normal one's.

    Args:
        prediction: Predicted numbers, ``(rows,)``.
        y: True numbers, ``(rows,)``.
        name: Name of the target.
        num_drawn: Points to draw, at most; the distribution is of all rows.
        num_all: Rows there are, where these are the first of them.
    """
    from matplotlib.figure import Figure

    error = y - prediction
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    axes, beside = figure.subplots(1, 2)
    axes.scatter(prediction[:num_drawn], error[:num_drawn], s=8, alpha=0.4, linewidths=0)
    axes.axhline(0, color="black", linewidth=1)
    if len(error) >= 50:
        _median_line(axes, prediction, error)
    axes.set(xlabel=f"predicted {name}", ylabel="true minus predicted")
    axes.set_title(part_of(min(num_drawn, len(y)), max(num_all, len(y)), "residuals"))
    _, edges, _ = beside.hist(error, bins=min(40, max(len(error) // 8, 5)), density=True, alpha=0.6)
    mean, std = float(error.mean()), float(error.std()) or 1.0
    x = np.linspace(edges[0], edges[-1], 200)
    normal = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    beside.plot(x, normal, color="black", linewidth=1, label="normal of this spread")
    shown = part_of(len(y), num_all, "test rows")
    title = f"mean {mean:.3g}, standard deviation {std:.3g}, {shown}"
    beside.set(xlabel="true minus predicted", ylabel="density", title=title)
    beside.legend()
    for part in (axes, beside):
        part.grid(alpha=0.3)
    return figure


def _median_line(axes: "Axes", prediction: Array, error: Array) -> None:
    order = np.argsort(prediction)
    parts = np.array_split(order, 10)
    x = [np.median(prediction[part]) for part in parts]
    y = [np.median(error[part]) for part in parts]
    axes.plot(x, y, "o-", color="tab:orange", markersize=4, label="median of a tenth")
    axes.legend()


def permutation_importance(
    predict: Callable[[Tensor], Tensor],
    losses: Callable[[Tensor], Tensor],
    x: Tensor,
    groups: Sequence[Sequence[int]],
    num_repeats: int = 3,
) -> tuple[Array, Array]:
    """How much larger the loss is with a column's values dealt to other rows.

    Args:
        predict: Predictions of rows.
        losses: Loss of each row's prediction.
        x: The rows, ``(rows, D)``.
        groups: Columns of ``x`` that belong together.
        num_repeats: Number of deals.

    Returns:
        Mean and standard deviation over the deals of each group, ``(groups,)``.
    """
    generator = torch.Generator().manual_seed(0)
    before = losses(predict(x)).mean()
    found = np.zeros((len(groups), num_repeats))
    for g, columns in enumerate(groups):
        for repeat in range(num_repeats):
            rows = torch.randperm(len(x), generator=generator).to(x.device)
            dealt = x.clone()
            dealt[:, columns] = x[rows][:, columns]
            found[g, repeat] = float(losses(predict(dealt)).mean() - before)
    return found.mean(1), found.std(1)


def importance_figure(
    mean: Array, std: Array, names: Sequence[str], loss: str, num_rows: int, num_all: int = 0
) -> "Figure":
    """Bars of the permutation importance, the largest on top.

    Args:
        mean: Importance of each column.
        std: Its standard deviation over the deals.
        names: Names of the columns.
        loss: Name of the loss.
        num_rows: Rows that were scored.
        num_all: Rows there are.
    """
    from matplotlib.figure import Figure

    order = np.argsort(mean)[::-1][:_MAX_BARS][::-1]
    figure = Figure(figsize=(6.4, 1.4 + 0.28 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(order)), mean[order], xerr=std[order], capsize=2)
    axes.set_yticks(range(len(order)), [str(names[i])[:30] for i in order])
    axes.axvline(0, color="black", linewidth=1)
    more = f", {len(order)} of {len(names)} columns" if len(names) > len(order) else ""
    axes.set(xlabel=f"{loss} added by dealing the column to other rows")
    shown = part_of(num_rows, num_all, "test rows")
    axes.set_title(f"permutation importance, {shown}{more}")
    axes.grid(alpha=0.3, axis="x")
    return figure
