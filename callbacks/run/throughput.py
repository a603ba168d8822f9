"""Tokens a second while a fit trains, and the share of the accelerator's arithmetic they use."""

import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from datamodules.batches import SequencePairBatch, TokenBatch


class Throughput(L.Callback):
    """Counts the tokens of the training batches, padding included, of all processes.

    Validation takes no part in the time. The model's floating-point operations are those that its
    ``training_flops`` says of a batch, at least what the mathematics needs: model FLOPs utilization
    (MFU) as in Chowdhery et al., "PaLM" (2022), appendix B. A processor whose peak Lightning does
    not know, a CPU among them, has none.
    """

    def __init__(self) -> None:
        self.num_tokens, self.flops, self.seconds = 0, 0.0, 0.0
        self._started: float | None = None
        self._peak: int | None = None

    def _pause(self) -> None:
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
        self._started = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.num_tokens, self.flops, self.seconds = 0, 0.0, 0.0
        self._started = time.perf_counter()
        if pl_module.device.type == "cuda":
            halved = "16" in str(trainer.precision)
            self._peak = get_available_flops(
                pl_module.device, torch.bfloat16 if halved else torch.float32
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Counts a batch."""
        if isinstance(batch, TokenBatch):
            self.num_tokens += batch.tokens.numel() * trainer.world_size
        elif isinstance(batch, SequencePairBatch):
            self.num_tokens += (batch.src.numel() + batch.tgt.numel()) * trainer.world_size
        else:
            return
        cost = getattr(pl_module, "training_flops", None)
        self.flops += cost(batch) if cost is not None else 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock again, within a fit."""
        if trainer.training or trainer.state.fn == "fit":
            self._started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._pause()

    @property
    def rates(self) -> dict[str, float]:
        """``tokens_per_second`` and, where the peak is known, ``mfu``; none without tokens."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        seconds = self.seconds + running
        if self.num_tokens == 0 or seconds == 0:
            return {}
        rates = {"tokens_per_second": round(self.num_tokens / seconds, 1)}
        if self._peak is not None and self.flops:
            rates["mfu"] = round(self.flops / seconds / self._peak, 4)
        return rates


def rates_of(trainer: L.Trainer) -> dict[str, float]:
    """What a fit's :class:`Throughput` has measured so far."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = (callback.rates for callback in callbacks if isinstance(callback, Throughput))
    return next(found, {})
