"""Ctrl-C and SIGTERM finish the step, save it, and stop."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L


class GracefulInterrupt(L.Callback):
    """Turns the first signal into a checkpoint at the end of the training step.

    An interrupt in the middle of a step or of a validation would leave a state that no
    uninterrupted run passes through. A second signal stops at once. With several ranks Lightning's
    own handling stays: they would save at different steps.

    Attributes:
        signum: Signal that stopped the run, or None.
        advice: How to continue, where there is something to continue.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.advice: str | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        sys.stderr.write("\nstopping after this step or validation; once more stops at once\n")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leaves SIGTERM to Lightning, which tells the other ranks, where there are several."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over, from Lightning too: its handler stops between two hooks."""
        if trainer.world_size > 1:
            return
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._handle)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves ``last.ckpt`` and stops, if a signal has come."""
        if self.signum is not None and not trainer.fit_loop._should_accumulate():
            folder = getattr(trainer.checkpoint_callback, "dirpath", None)
            if folder is not None:
                trainer.save_checkpoint(Path(folder) / "last.ckpt")
                self.advice = "saved; continue with --ckpt_path last"
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops a run whose signal came during its last validation; its checkpoints stand."""
        if self.signum is not None:
            self.advice = "the fit is complete; test it with --ckpt_path best"
            raise KeyboardInterrupt
        self._give_back()

    def _give_back(self) -> None:
        # Before Lightning gives back what it has taken: in the teardown hook, which comes after,
        # this would install Lightning's handler again, and SIGTERM would go unheard in the test.
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Remembers an interrupt that came outside a fit, and gives the signals back."""
        if isinstance(exception, KeyboardInterrupt) and self.signum is None:
            self.signum = int(exception.args[0]) if exception.args else signal.SIGINT
        self._give_back()
