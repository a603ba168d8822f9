"""Exponential moving average of the weights, scored at every evaluation."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Lightning's moving average over all weights at once, safe to test after a fit.

    The checkpoint's weights are the averaged ones, the raw ones stand beside them for a resumed
    fit. Lightning's callback takes the raw ones back wherever it loads a checkpoint after a fit,
    the test of the best one included; this one does so at the start of a fit alone.

    Args:
        decay: Weight of the average at each step.
        update_every_n_steps: Optimizer steps from one update to the next.

    Raises:
        ValueError: If the decay is outside [0, 1), or ``update_every_n_steps`` is below 1.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        if update_every_n_steps < 1:
            raise ValueError(f"update_every_n_steps is {update_every_n_steps}; give 1 or more")
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay must lie in [0, 1), got {decay}; 1 would keep the first step's"
            )
        # Buffers are copied, not averaged: constants of a schedule would drift by rounding.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=False, multi_avg_fn=average)
        self.update_every_n_steps = update_every_n_steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Every so many optimizer steps, from the first on."""
        return step_idx is not None and step_idx % self.update_every_n_steps == 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copies the model at the start of a fit."""
        # The injected factories lead to the command, and so to the processes of further ranks,
        # which cannot be copied. The average needs none.
        names = ("optimizer", "lr_scheduler")
        factories = {name: vars(pl_module).pop(name, None) for name in names}
        super().setup(trainer, pl_module, stage)
        vars(pl_module).update(factories)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes average and raw weights back to continue a fit."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
