"""A run whose loss is not finite ends at once."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from datamodules.errors import DivergedError


class StopAtDivergence(L.Callback):
    """Stops a fit whose training loss is no longer finite, before a checkpoint holds its weights.

    The losses are looked at every so many steps and at the end of each epoch, by all ranks alike: a
    look makes an accelerator wait.

    Args:
        every_n_steps: Batches between two looks.

    Raises:
        DivergedError: At the first look that finds one.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._sum: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds the loss up; a sum is finite only if all of its terms are."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._sum = 0 * loss.detach() if self._sum is None else self._sum + 0 * loss.detach()
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if last or (batch_idx + 1) % self.every_n_steps == 0:
            self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        lost = self._sum is not None and not bool(torch.isfinite(self._sum).all())
        self._sum = None
        if trainer.world_size > 1:
            lost = trainer.strategy.reduce_boolean_decision(lost, all=False)
        if lost:
            raise DivergedError(
                f"train/loss is not finite in epoch {trainer.current_epoch}, by step "
                f"{trainer.global_step}; lower --model.optimizer.lr, or clip with "
                "--trainer.gradient_clip_val 1"
            )
