"""Scores of a table's rows, by name."""

from typing import Any

from torch import Tensor
from torchmetrics import (
    AUROC,
    Accuracy,
    AveragePrecision,
    CalibrationError,
    F1Score,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    R2Score,
)

from lit_models.metrics.scores import CrossEntropy


def class_scores(num_classes: int) -> dict[str, Metric]:
    """Scores of log probabilities ``(B, K)``.

    Args:
        num_classes: Number K of classes; AUROC, average precision, recall and F1 are means over
            them.
    """
    options: dict[str, Any] = {"task": "multiclass", "num_classes": num_classes}
    return {
        "accuracy": Accuracy(**options),
        "cross_entropy": CrossEntropy(),
        "balanced_accuracy": Accuracy(**options, average="macro"),
        "macro_f1": F1Score(**options, average="macro"),
        "auroc": AUROC(**options, thresholds=500),
        "average_precision": AveragePrecision(**options, thresholds=500),
        "calibration_error": CalibrationError(**options),
    }


def number_scores() -> dict[str, Metric]:
    """Scores of numbers ``(B, K)`` in the units of the data."""
    return {
        "mse": MeanSquaredError(),
        "mae": MeanAbsoluteError(),
        "rmse": MeanSquaredError(squared=False),
        "r2": R2Score(),
    }


def skewness(y: Tensor) -> Tensor:
    """Third standardised moment of each column."""
    z = (y - y.mean(0)) / y.std(0, correction=0).clamp(min=1e-300)
    return z.pow(3).mean(0)
