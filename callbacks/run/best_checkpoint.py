"""``best.ckpt``, also among several."""

import os
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, with ``best.ckpt`` as the best also where it keeps several.

    Under one fixed name every checkpoint would replace the one before, the best included. With
    ``save_top_k`` other than 1 each has the epoch and step in its name, and ``best.ckpt`` is the
    best of them.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives several checkpoints names of their own."""
        if self.save_top_k not in (0, 1) and self.filename == "best":
            self.filename = "epoch={epoch}-step={step}"
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """That of Lightning's own, so that earlier runs are continued."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves, and names the best."""
        super().on_validation_end(trainer, pl_module)
        self._name_best(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves, and names the best."""
        super().on_train_epoch_end(trainer, pl_module)
        self._name_best(trainer)

    def _name_best(self, trainer: L.Trainer) -> None:
        best = Path(self.best_model_path)
        if not trainer.is_global_zero or not best.is_file() or best.name == "best.ckpt":
            return
        link = best.with_name("best.ckpt")
        if link.exists() and link.samefile(best):
            return
        # A second name for the same bytes; no moment without a best checkpoint.
        made = best.with_name(".best.ckpt")
        made.unlink(missing_ok=True)
        os.link(best, made)
        made.replace(link)
