"""Randomness as a function of the step, so that a resumed run repeats the uninterrupted one."""

from typing import Any

import lightning as L
import torch

from datamodules.seeds import seed_of


class StepSeed(L.Callback):
    """Seeds torch before each batch with a function of seed, stage, epoch, batch and rank.

    Lightning saves no generator state. With this, dropout masks, sampled noise and teacher forcing
    are the same after any resume, and evaluation neither depends on training nor disturbs it.

    The module's ``step_seed`` is the same on every rank, for noise that belongs to a row of the
    batch whatever rank the row is on.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _reseed(
        self, trainer: L.Trainer, pl_module: L.LightningModule, stage: int, batch_idx: int
    ) -> None:
        # Evaluation noise is the same every epoch: scores differ by the weights alone.
        epoch = trainer.current_epoch if stage == 0 else 0
        step = (self.seed, stage, epoch, batch_idx)
        pl_module.step_seed = seed_of(*step)  # type: ignore[assignment]
        value = seed_of(*step, trainer.global_rank % trainer.world_size)
        torch.default_generator.manual_seed(value)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(value)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds a training step."""
        self._reseed(trainer, pl_module, 0, batch_idx)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Seeds a validation step."""
        self._reseed(trainer, pl_module, 1, batch_idx)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Seeds a test step."""
        self._reseed(trainer, pl_module, 2, batch_idx)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Seeds a prediction step."""
        self._reseed(trainer, pl_module, 3, batch_idx)
