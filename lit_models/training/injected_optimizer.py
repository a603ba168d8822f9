"""Optimizer and schedule as the command line or the user gives them."""

from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import Optimizer

from datamodules.errors import InputError
from lit_models.optim import AdamWMatrixDecay
from lit_models.training import rates
from lit_models.training.lightning_repairs import (
    QuickHookNames,
    clip_gradients,
    max_steps,
    run_length,
)
from lit_models.training.schedule_memory import ScheduleMemory


class InjectedOptimizer(QuickHookNames):
    """A module that is handed what makes its optimizer and its schedule.

    Attributes:
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer; one without a length is
            told that of the run.
        lr_scheduler_interval: Whether the schedule advances every ``"step"`` or every ``"epoch"``;
            None as its class means it (:mod:`lit_models.training.rates`).
    """

    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None
    lr_scheduler_interval: rates.Interval | None = None
    _has_open_length = False
    _memory: ScheduleMemory | None = None

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule as injected."""
        length = None if self._trainer is None else run_length(self._trainer)
        return self._make_optimizer(self._trainer, length)

    def check_optimizers(self, trainer: L.Trainer) -> str:
        """Builds optimizer and schedule for a Trainer that has not begun, to see that they can be.

        Returns:
            Name of the optimizer's class.

        Raises:
            InputError: If they do not suit the Trainer.
            TypeError, ValueError: torch's, for a wrong argument.
        """
        length = 1 if trainer.max_epochs != -1 else max_steps(trainer)
        made = self._make_optimizer(trainer, length)
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        return type(optimizer).__qualname__

    def _make_optimizer(self, trainer: L.Trainer | None, length: float | None) -> Any:
        if isinstance(self.optimizer, Optimizer):
            name = type(self.optimizer).__qualname__
            raise InputError(
                "optimizer is a function of the parameters, not an optimizer; give "
                f"functools.partial(torch.optim.{name}, lr=0.01)"
            )
        optimizer: Any = self.optimizer(self.parameters())
        if isinstance(optimizer, AdamWMatrixDecay):
            optimizer.exempt(self)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = rates.make_schedule(self.lr_scheduler, optimizer, length)
        self._has_open_length = rates.has_open_length(scheduler, self.lr_scheduler)
        config = rates.schedule_config(scheduler, self.lr_scheduler_interval, trainer)
        return {"optimizer": optimizer, "lr_scheduler": config}

    @property
    def _schedule(self) -> ScheduleMemory:
        if self._memory is None:
            self._memory = ScheduleMemory()
        return self._memory

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the schedule was made of."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["schedule"] = self._schedule.made

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes what the schedule of the run was made of, to continue it."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None:
            self._schedule.load(checkpoint)

    def on_fit_start(self) -> None:
        """Notes what the schedule is made of, before its state is restored."""
        super().on_fit_start()
        self._schedule.note(self.trainer, self._has_open_length)

    def on_train_start(self) -> None:
        """Tells a schedule without a length that of the run, which may be longer than before."""
        super().on_train_start()
        if self.trainer.ckpt_path is not None:
            self._schedule.apply(self.trainer, self._has_open_length)
        if self._has_open_length:
            rates.tell_length(self.trainer.lr_scheduler_configs[0].scheduler, self.trainer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips, also for a fused optimizer in bfloat16, which Lightning refuses."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)
