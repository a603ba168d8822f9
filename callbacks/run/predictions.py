"""Predictions in one ordered file, whatever the number of ranks."""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.frames import write_frame
from datamodules.files.whole_file import whole_file


class OrderedPredictions(BasePredictionWriter):
    """Writes the predictions into the run's folder: one row per sample, in the order of the data.

    Every rank's outputs are gathered on rank zero and sorted by row number; the datamodule turns
    them into the units and labels of the user's file and names the file, ``predictions.csv`` where
    it has no other.

    Args:
        spreadsheet: Whether text that a spreadsheet would run as a formula gets a leading ``'``.
    """

    def __init__(self, spreadsheet: bool = False) -> None:
        super().__init__(write_interval="epoch")
        self.spreadsheet = spreadsheet

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers, sorts and writes."""
        loader: Any = trainer.predict_dataloaders
        if hasattr(loader, "rows"):
            rows = [loader.rows(index) for index in range(len(predictions))]
        else:
            rows = _rows_in_turn(predictions, trainer)
        parts = self._gather((rows, [_to_cpu(outputs) for outputs in predictions]), trainer)
        if not trainer.is_global_zero:
            return
        all_rows = [row for rows, _ in parts for row in rows]
        outputs = [output for _, outputs in parts for output in outputs]
        columns = in_row_order(all_rows, outputs)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(datamodule, "write_predictions"):
            path = datamodule.write_predictions(columns, folder)
        else:
            path = write_frame(columns, folder)
        if self.spreadsheet and Path(path).suffix == ".csv":
            quote_formulas(Path(path))
        sys.stdout.write(f"\npredictions: {path}\n")

    @staticmethod
    def _gather(part: Any, trainer: L.Trainer) -> list[Any]:
        if trainer.world_size == 1:
            return [part]
        parts = [None] * trainer.world_size if trainer.is_global_zero else None
        dist.gather_object(part, parts)
        return parts or []


def _rows_in_turn(predictions: Sequence[Any], trainer: L.Trainer) -> list[Tensor]:
    """Row numbers of a loader that does not tell them: one process reads them in turn."""
    if trainer.world_size > 1:
        raise InputError(
            "the loader has no rows(batch_idx), so several devices cannot order its predictions; "
            "add --trainer.devices 1"
        )
    if predictions and isinstance(predictions[0], list):
        raise InputError("predictions of several loaders have no common order; give one loader")
    sizes = [len(next(iter(outputs.values()))) for outputs in predictions]
    return list(torch.split(torch.arange(sum(sizes)), sizes))


def quote_formulas(path: Path) -> None:
    """Puts a ``'`` before each cell of a CSV file, titles too, that would run as a formula."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [[_quoted(cell) for cell in row] for row in csv.reader(file)]
    with whole_file(path) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _quoted(cell: str) -> str:
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def in_row_order(
    rows: Sequence[Tensor], outputs: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Joins the outputs of batches.

    Args:
        rows: Row numbers of each batch, ``(B,)``.
        outputs: Columns of each batch by name, each ``(B, ...)``.

    Returns:
        Columns by name, in the order of the rows.
    """
    order = torch.argsort(torch.cat(list(rows)))
    return {name: torch.cat([o[name] for o in outputs])[order] for name in outputs[0]}


def _to_cpu(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in outputs.items()}
