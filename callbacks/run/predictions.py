"""Predictions in one ordered file, whatever the number of ranks."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

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
        rows = [loader.rows(index) for index in range(len(predictions))]
        parts = self._gather((rows, [_to_cpu(outputs) for outputs in predictions]), trainer)
        if not trainer.is_global_zero:
            return
        all_rows = torch.cat([row for rows, _ in parts for row in rows])
        outputs = [output for _, outputs in parts for output in outputs]
        order = torch.argsort(all_rows)
        columns = {name: torch.cat([o[name] for o in outputs])[order] for name in outputs[0]}
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = datamodule.write_predictions(columns, folder)
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


def _to_cpu(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in outputs.items()}
