"""Predictions in one ordered file, whatever the number of ranks."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor


class OrderedPredictions(BasePredictionWriter):
    """Writes the predictions into the run's folder: one row per sample, in the order of the data.

    Every rank's outputs are gathered on rank zero and sorted by row number; the datamodule turns
    them into the units and labels of the user's file and names the file, ``predictions.csv`` where
    it has no other.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

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
        all_rows = [row for rows, _ in parts for row in rows]
        outputs = [output for _, outputs in parts for output in outputs]
        columns = in_row_order(all_rows, outputs)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = datamodule.write_predictions(columns, folder)
        sys.stdout.write(f"\npredictions: {path}\n")

    @staticmethod
    def _gather(part: Any, trainer: L.Trainer) -> list[Any]:
        if trainer.world_size == 1:
            return [part]
        parts = [None] * trainer.world_size if trainer.is_global_zero else None
        dist.gather_object(part, parts)
        return parts or []


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
