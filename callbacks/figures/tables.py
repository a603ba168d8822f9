"""Figures of tables: confusion matrix, predicted against true, and what suits each target."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.nn import functional

from callbacks.figures.base import FigureCallback
from callbacks.figures.table_scores import (
    calibration_figure,
    importance_figure,
    permutation_importance,
    ranking_figure,
    residual_figure,
)
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_DEALS = 3
_FEWEST_ROWS = 100


def _head(trainer: L.Trainer, pl_module: L.LightningModule, num_rows: int) -> SupervisedBatch:
    """The first test rows, on the model's device."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    data = datamodule.split("test")
    codes = None if data.categories is None else data.categories[:num_rows]
    head = SupervisedBatch(data.x[:num_rows], data.y[:num_rows], codes)
    if codes is not None:  # which the data's own loader turns into columns
        head = datamodule.one_hot(head)
    return SupervisedBatch(head.x.to(pl_module.device), head.y.to(pl_module.device))


class ConfusionMatrix(FigureCallback):
    """Counts of true against predicted classes, shaded by the share of each true class.

    Args:
        num_rows: Test rows to count, at most.
    """

    def __init__(self, num_rows: int = 20_000) -> None:
        self.num_rows = num_rows

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that there are classes.

        Raises:
            InputError: For a model without classes.
        """
        if "num_classes" not in pl_module.hparams:
            raise InputError(
                f"ConfusionMatrix needs a classifier, got {type(pl_module).__name__}; leave the "
                "callback out, as --config mlp_regressor does"
            )

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The matrix."""
        from matplotlib.figure import Figure

        batch = _head(trainer, pl_module, self.num_rows)
        logits = pl_module(batch.x)
        num_classes = logits.shape[1]
        index = batch.y * num_classes + logits.argmax(1)
        counts = torch.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)
        shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).cpu()
        names = getattr(trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        names = names or [str(k) for k in range(num_classes)]
        size = 2.4 + 0.6 * num_classes
        figure = Figure(figsize=(size + 0.8, size))
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        for i in range(num_classes):
            for j in range(num_classes):
                text = f"{int(counts[i, j])}\n{100 * shares[i, j]:.0f} %"
                color = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(num_classes), names)
        axes.set_yticks(range(num_classes), names)
        accuracy = counts.trace().item() / counts.sum().item()
        num_rows, all_rows = len(batch.y), len(trainer.datamodule.split("test").y)  # type: ignore[attr-defined]
        of_all = f" of {all_rows:,}" if all_rows > num_rows else ""
        title = f"accuracy {accuracy:.4f} on {num_rows:,}{of_all} rows"
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        return {"confusion_matrix": figure}


class PredictedAgainstTrue(FigureCallback):
    """Predictions of a regression against the true values, with the diagonal.

    Args:
        num_rows: Test rows to draw, at most.
    """

    def __init__(self, num_rows: int = 1000) -> None:
        self.num_rows = num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The scatter."""
        from matplotlib.figure import Figure

        batch = _head(trainer, pl_module, self.num_rows)
        preds, true = pl_module(batch.x)[:, 0].cpu(), batch.y[:, 0].cpu()
        figure = Figure(figsize=(4.8, 4.8))
        axes = figure.subplots()
        axes.scatter(true, preds, s=8, alpha=0.4, linewidths=0)
        low, high = min(true.min(), preds.min()), max(true.max(), preds.max())
        axes.plot([low, high], [low, high], color="black", linewidth=1, label="prediction = truth")
        rmse = (preds - true).square().mean().sqrt()
        axes.set(xlabel="true value", ylabel="prediction", title=f"root mean square {rmse:.4g}")
        axes.set_aspect("equal", "box")
        axes.grid(alpha=0.3)
        axes.legend()
        return {"predicted_against_true": figure}


class TableFigures(FigureCallback):
    """What suits the target, and which columns matter.

    Classes: confusion matrix, calibration, ROC and precision-recall curves; numbers: predictions
    against true values, residuals. Both: permutation importance of the columns.

    Args:
        num_rows: Test rows to count, at most.
        max_importance: Predictions of rows that the permutation importance may cost, at most; 0
            leaves it out.
    """

    def __init__(self, num_rows: int = 20_000, max_importance: int = 60_000) -> None:
        self.num_rows, self.max_importance = num_rows, max_importance

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures of the task; no matrix of more than thirty classes."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        figures = {}
        batch = _head(trainer, pl_module, self.num_rows)
        if batch.y.is_floating_point():
            figures = PredictedAgainstTrue(min(self.num_rows, 1000)).draw(trainer, pl_module)
            preds = pl_module(batch.x[:1000])[:, 0].cpu().double().numpy()
            true = batch.y[:1000, 0].cpu().double().numpy()
            figures["residuals"] = residual_figure(preds, true, datamodule.targets[0])
        else:
            if datamodule.num_classes <= 30:
                figures = ConfusionMatrix(self.num_rows).draw(trainer, pl_module)
            probability = pl_module(batch.x).softmax(1).cpu().double().numpy()
            true = batch.y.cpu().numpy()
            figures["calibration"] = calibration_figure(probability, true)
            figures["roc_and_precision"] = ranking_figure(probability, true, datamodule.class_names)
        return figures | self._importance(datamodule, pl_module, batch)

    def _importance(
        self, datamodule: Any, pl_module: L.LightningModule, batch: SupervisedBatch
    ) -> "dict[str, Figure]":
        groups, start = [], 0
        for encoding in datamodule.encodings:
            width = encoding.num_numbers + encoding.num_levels
            groups.append(range(start, start + width))
            start += width
        num_rows = self.max_importance // (_NUM_DEALS * len(groups))
        if num_rows < _FEWEST_ROWS:
            return {}
        x, y = batch.x[:num_rows], batch.y[:num_rows]
        is_class = not y.is_floating_point()

        def losses(output: torch.Tensor) -> torch.Tensor:
            if is_class:
                return functional.cross_entropy(output, y, reduction="none")
            return (output - y).square().mean(1)

        mean, std = permutation_importance(pl_module, losses, x, groups, _NUM_DEALS)
        names = [encoding.name for encoding in datamodule.encodings]
        loss = "cross-entropy" if is_class else "squared error"
        return {"importance": importance_figure(mean, std, names, loss, len(x))}
