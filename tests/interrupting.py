"""Signals at a known place of a run."""

import signal
from typing import Any

import lightning as L
from tiny import TinyDataModule


class SignalAt(L.Callback):
    """Raises a signal at the second batch of a phase.

    Args:
        phase: Phase of the run.
        signum: The signal.
    """

    def __init__(self, phase: str, signum: int) -> None:
        self.phase, self.signum = phase, signum

    def _batch(self, phase: str, batch_idx: int) -> None:
        if phase == self.phase and batch_idx == 1:
            signal.raise_signal(self.signum)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch("fit", batch_idx)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch("validation", batch_idx)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch("test", batch_idx)

    def on_predict_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch("predict", batch_idx)


class InterruptedDataModule(TinyDataModule):
    """Data during whose making a signal comes.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum

    def make_split(self, split: str) -> Any:
        signal.raise_signal(self.signum)
        return super().make_split(split)
