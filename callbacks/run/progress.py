"""One progress bar for the whole run, refreshed by the clock."""

import sys
import time
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from callbacks.run.throughput import rates_of

_LINE = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines:
    """Standard error for a bar that no terminal redraws: every state is a line of its own."""

    def write(self, text: str) -> None:
        """Writes one state of the bar."""
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        """Passes it on."""
        sys.stderr.flush()


class RunProgress(ProgressBar):
    """Optimizer steps of the whole fit on one line, with the latest epoch's losses and the speed.

    Lightning's bars cost about 100 us per step and start a line per epoch. This one looks at the
    clock, and where nobody watches a terminal it writes a line every ten seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[NoReturn] | None = None
        self._shown = 0.0
        self._enabled = True
        self._watched = sys.stderr.isatty()
        self._seconds = 0.2 if self._watched else 10.0

    def disable(self) -> None:
        """Called by the Trainer on every rank but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Undoes :meth:`disable`."""
        self._enabled = True

    def _open(self, description: str, total: float, start: int = 0) -> None:
        self._bar = tqdm(
            desc=description,
            total=None if total == float("inf") else int(total),
            initial=start,
            disable=not self._enabled,
            mininterval=self._seconds,
            dynamic_ncols=self._watched,
            file=sys.stderr if self._watched else _Lines(),
            bar_format=None if self._watched else _LINE,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _is_due(self) -> bool:
        return time.monotonic() - self._shown >= self._seconds

    def _show(self, done: int, force: bool = False) -> None:
        if self._bar is not None and (force or self._is_due()):
            self._shown = time.monotonic()
            self._bar.update(done - self._bar.n)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the bar over all optimizer steps."""
        self._open("fit", float(trainer.estimated_stepping_batches), trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Moves the bar when it is time."""
        if self._is_due():
            self._say(trainer)
        self._show(trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows the losses of the epoch."""
        self._say(trainer)
        self._show(trainer.global_step)

    def _say(self, trainer: L.Trainer) -> None:
        """Sets what stands behind the bar: the latest losses, and the speed on text."""
        if self._bar is None:
            return
        metrics, rates = trainer.callback_metrics, rates_of(trainer)
        losses = [name for name in ("train/loss", "val/loss") if name in metrics]
        said: dict[str, str] = {name: f"{metrics[name]:.4g}" for name in losses}
        if rates:
            said["tokens/s"] = f"{rates['tokens_per_second']:,.0f}"
        if "mfu" in rates:
            said["mfu"] = f"{rates['mfu']:.1%}"
        self._bar.set_postfix(said, refresh=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the bar."""
        self._show(trainer.global_step, force=True)
        self._close()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens a bar over the test batches."""
        self._open("test", sum(map(float, trainer.num_test_batches)))

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Moves the bar when it is time."""
        self._show(batch_idx + 1)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens a bar over the batches to predict."""
        self._open("predict", sum(map(float, trainer.num_predict_batches)))

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Moves the bar when it is time."""
        self._show(batch_idx + 1)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar before the error is printed."""
        self._close()
