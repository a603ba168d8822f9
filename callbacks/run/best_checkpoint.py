"""``best.ckpt``, whatever else is kept beside it."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

_BEST = "best.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, whose best checkpoint is ``best.ckpt`` for every ``save_top_k``.

    With ``save_top_k`` other than 1 every checkpoint has its epoch and step in its name, and
    ``best.ckpt`` is the best of them once more. Under one name the list of the k best would never
    fill, and the last would be taken for the best (lightning 2.6.6).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.save_top_k != 1 and self.filename == Path(_BEST).stem:
            self.filename = "{epoch:03d}-{step}"
            self.auto_insert_metric_name = True

    @property
    def state_key(self) -> str:
        """That of the class it replaces, so that its runs are continued."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        best = Path(self.best_model_path)
        if not trainer.is_global_zero or best.name == _BEST or not best.is_file():
            return
        place = best.with_name(_BEST)
        beside = place.with_suffix(".part")
        beside.unlink(missing_ok=True)
        try:
            os.link(best, beside)
        except OSError:  # a file system without links
            shutil.copyfile(best, beside)
        beside.replace(place)
