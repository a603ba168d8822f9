"""Figures of tables: confusion matrix, predicted against true, and what suits each target."""

from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch.nn import functional

from callbacks.figures.base import FigureCallback
from callbacks.figures.style import part_of
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
_CHUNK = 20_000


def _rows(trainer: L.Trainer, pl_module: L.LightningModule, rows: slice) -> SupervisedBatch:
    """Test rows, on the model's device."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    data = datamodule.split("test")
    codes = None if data.categories is None else data.categories[rows]
    part = SupervisedBatch(data.x[rows], data.y[rows], codes)
    if codes is not None:  # which the data's own loader turns into columns
        part = datamodule.one_hot(part)
    return SupervisedBatch(part.x.to(pl_module.device), part.y.to(pl_module.device))


def _outputs(trainer: L.Trainer, pl_module: L.LightningModule, num_rows: int) -> tuple[Any, Any]:
    """What the model says of the first test rows, and their targets, in the host's memory."""
    count = min(num_rows, _num_all(trainer))
    parts = [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    batches = (_rows(trainer, pl_module, part) for part in parts)
    outputs, targets = zip(*((pl_module(b.x).cpu(), b.y.cpu()) for b in batches), strict=True)
    return torch.cat(outputs), torch.cat(targets)


def _num_all(trainer: L.Trainer) -> int:
    return len(trainer.datamodule.split("test").y)  # type: ignore[attr-defined]


def _shown(trainer: L.Trainer, num_rows: int) -> str:
    return part_of(num_rows, _num_all(trainer), "test rows")


class ConfusionMatrix(FigureCallback):
    """Counts of true against predicted classes, shaded by the share of each true class.

    Args:
        num_rows: Test rows to count, at most.
    """

    def __init__(self, num_rows: int = 200_000) -> None:
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

        logits, y = _outputs(trainer, pl_module, self.num_rows)
        num_classes = logits.shape[1]
        index = y * num_classes + logits.argmax(1)
        counts = torch.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        names = getattr(trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        names = names or [str(k) for k in range(num_classes)]
        size = 2.4 + 0.6 * num_classes
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        for i in range(num_classes):
            for j in range(num_classes):
                text = f"{int(counts[i, j]):,}\n{100 * shares[i, j]:.0f} %"
                color = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, text, ha="center", va="center", color=color)
        axes.set_xticks(range(num_classes), names)
        axes.set_yticks(range(num_classes), names)
        accuracy = counts.trace().item() / counts.sum().item()
        title = f"accuracy {accuracy:.4f}, {_shown(trainer, len(y))}"
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        return {"confusion_matrix": figure}


class PredictedAgainstTrue(FigureCallback):
    """Predictions of a regression against the true values, with the diagonal.

    Args:
        num_rows: Test rows to draw, at most.
        num_scored: Test rows of the error in the title, at most.
    """

    def __init__(self, num_rows: int = 1000, num_scored: int = 200_000) -> None:
        self.num_rows, self.num_scored = num_rows, num_scored

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The scatter."""
        from matplotlib.figure import Figure

        outputs, y = _outputs(trainer, pl_module, max(self.num_scored, self.num_rows))
        preds, true = outputs[:, 0].double(), y[:, 0].double()
        rmse = (preds - true).square().mean().sqrt()
        title = f"root mean square error {rmse:.4g}, {_shown(trainer, len(true))}"
        if self.num_rows < len(true):
            title += f", {self.num_rows:,} drawn"
        preds, true = preds[: self.num_rows], true[: self.num_rows]
        figure = Figure(figsize=(4.8, 4.8), layout="constrained")
        axes = figure.subplots()
        axes.scatter(true, preds, s=8, alpha=0.4, linewidths=0)
        low, high = min(true.min(), preds.min()), max(true.max(), preds.max())
        axes.plot([low, high], [low, high], color="black", linewidth=1, label="prediction = truth")
        name = getattr(trainer.datamodule, "targets", ["value"])[0]  # type: ignore[attr-defined]
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", title=title)
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

    def __init__(self, num_rows: int = 200_000, max_importance: int = 60_000) -> None:
        self.num_rows, self.max_importance = num_rows, max_importance

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures of the task; no matrix of more than thirty classes."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        figures = {}
        outputs, y = _outputs(trainer, pl_module, self.num_rows)
        num_all, true = _num_all(trainer), y.numpy()
        if y.is_floating_point():
            scatter = PredictedAgainstTrue(min(self.num_rows, 1000), self.num_rows)
            figures = scatter.draw(trainer, pl_module)
            preds, name = outputs[:, 0].double().numpy(), datamodule.targets[0]
            true = true[:, 0].astype(np.float64)
            figures["residuals"] = residual_figure(preds, true, name, num_all=num_all)
        else:
            if datamodule.num_classes <= 30:
                figures = ConfusionMatrix(self.num_rows).draw(trainer, pl_module)
            probability = outputs.double().softmax(1).numpy()
            figures["calibration"] = calibration_figure(probability, true, num_all=num_all)
            names = datamodule.class_names
            figures["roc_and_precision"] = ranking_figure(probability, true, names, num_all)
        return figures | self._importance(trainer, pl_module)

    def _importance(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        groups, start = [], 0
        for encoding in datamodule.encodings:
            width = encoding.num_numbers + encoding.num_levels
            groups.append(range(start, start + width))
            start += width
        num_rows = self.max_importance // (_NUM_DEALS * len(groups))
        if num_rows < _FEWEST_ROWS:
            return {}
        x, y = _rows(trainer, pl_module, slice(num_rows))[:2]
        is_class = not y.is_floating_point()

        def losses(output: torch.Tensor) -> torch.Tensor:
            if is_class:
                return functional.cross_entropy(output, y, reduction="none")
            return (output - y).square().mean(1)

        mean, std = permutation_importance(pl_module, losses, x, groups, _NUM_DEALS)
        names = [encoding.name for encoding in datamodule.encodings]
        loss = "cross-entropy" if is_class else "squared error"
        return {"importance": importance_figure(mean, std, names, loss, len(x), _num_all(trainer))}
