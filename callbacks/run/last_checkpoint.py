"""``last.ckpt``: where a run stands, to continue it from."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` at every validation, every so many steps if asked, and at the end.

    ``ModelCheckpoint(save_last=True)`` writes it only when a new best is found (lightning 2.6.6),
    so that a run could not be continued from where it stopped. Each save lies in a hook from which
    a resumed run repeats the uninterrupted one; after the last step of a run there is none.

    Args:
        dirpath: Folder of the file.
        every_n_train_steps: Optimizer steps between two saves within an epoch; 0 saves none.
    """

    def __init__(self, dirpath: str = "checkpoints", every_n_train_steps: int = 0) -> None:
        if every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps must not be negative, got {every_n_train_steps}")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self._saved_step = 0

    def _save(self, trainer: L.Trainer) -> None:
        # The hooks of a step follow each other; only in the first is its state that of a resume.
        if trainer.fast_dev_run or trainer.global_step == self._saved_step:  # type: ignore[attr-defined]
            return
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Saves within an epoch."""
        if self._is_due(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        """Whether a save within an epoch is asked for, or the run ends here."""
        every = self.every_n_train_steps
        ends = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        return ends or (every > 0 and trainer.global_step % every == 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after a validation within an epoch."""
        in_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if in_fit and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after an epoch that ended with a validation, or where none is made."""
        every = trainer.check_val_every_n_epoch
        validated = every is None or (trainer.current_epoch + 1) % every == 0
        if validated or not trainer.enable_validation or self._is_due(trainer):
            self._save(trainer)
