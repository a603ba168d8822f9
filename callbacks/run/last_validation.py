"""A fit ends with a validation, whatever the rhythm of the others."""

from typing import Any

import lightning as L


class LastValidation(L.Callback):
    """Validates after the last step of a fit.

    Lightning validates every so many epochs or batches alone: what was trained after the last of
    them, or all of a shorter fit, was never judged, and no checkpoint held it. A fit whose end
    shows only once its last step is done, as that of ``max_time``, is judged after it.
    """

    def __init__(self) -> None:
        self._judged_step = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes which step was judged."""
        self._judged_step = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validates where nothing has judged the last step."""
        if trainer.enable_validation and self._judged_step < trainer.global_step:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Asks for a validation where this was the last step."""
        if trainer.enable_validation and (trainer.should_stop or _is_last(trainer)):
            # Lightning validates before it stops, in an epoch that has a validation.
            trainer.should_stop = True
            if trainer.check_val_every_n_epoch is not None:
                trainer.check_val_every_n_epoch = 1


def _is_last(trainer: L.Trainer) -> bool:
    if 0 < trainer.max_steps <= trainer.global_step:
        return True
    ends_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return ends_epoch and 0 < (trainer.max_epochs or 0) <= trainer.current_epoch + 1
