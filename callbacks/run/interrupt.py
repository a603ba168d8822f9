"""How a run that does not reach its end says so: by a signal, or by the loss of a process."""

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver


class GracefulInterrupt(L.Callback):
    """Turns the first signal into a checkpoint at the end of the training step.

    An interrupt in the middle of a step or of a validation would leave a state that no
    uninterrupted run passes through. A second signal stops at once. With several ranks Lightning's
    own handling stays: they would save at different steps.

    Attributes:
        signum: Signal that stopped the run, or None.
        advice: How to continue, where there is something to continue.
        loss: What became of another process of the job that ended before its time, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.advice: str | None = None
        self.loss: str | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        sys.stderr.write("\nstopping after this step or validation; once more stops at once\n")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leaves SIGTERM to Lightning, which tells the other ranks, where there are several."""
        if _processes(trainer) == 1:
            return
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for thread in threading.enumerate():
            # It kills this process too once another has ended (lightning 2.6.6).
            if isinstance(thread, _ChildProcessObserver):
                self._speak_before(thread, trainer)

    def _speak_before(self, watch: Any, trainer: L.Trainer) -> None:
        kill = watch._terminate_all

        def terminate_all() -> None:
            self._note_loss(trainer, wait=0)
            sys.stderr.write(f"lit-models: error: {self.loss}\n")
            kill()

        watch._terminate_all = terminate_all

    def _note_loss(self, trainer: L.Trainer, wait: float) -> None:
        """Looks which of the processes that this one started has ended, and how to go on."""
        processes = getattr(trainer.strategy.launcher, "procs", [])
        deadline = time.monotonic() + wait
        while True:
            codes = {rank: process.poll() for rank, process in enumerate(processes, 1)}
            lost = next(((rank, code) for rank, code in codes.items() if code), None)
            if lost is not None or time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        if lost is None:
            return
        rank, code = lost
        name = signal.Signals(-code).name if code < 0 else f"code {code}"
        folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or "")
        advice = f"continue with --ckpt_path {folder / 'last.ckpt'}"
        if not (folder / "last.ckpt").is_file():
            advice = "nothing was saved yet"
        self.loss = f"process {rank} of the job ended with {name}; {advice}"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over, from Lightning too: its handler stops between two hooks."""
        if _processes(trainer) > 1:
            return
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._handle)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
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
        if _processes(trainer) > 1 and isinstance(exception, RuntimeError):
            self._note_loss(trainer, wait=2.0)  # of seconds: the other may still be ending
        if isinstance(exception, KeyboardInterrupt) and self.signum is None:
            self.signum = int(exception.args[0]) if exception.args else signal.SIGINT
        self._give_back()


def _processes(trainer: L.Trainer) -> int:
    """Number of processes of the job, whatever they share."""
    return trainer.num_devices * trainer.num_nodes
