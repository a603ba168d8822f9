"""Exponential moving average of the weights, scored at every evaluation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.run.sharded import is_shared, reshard


class EMA(WeightAveraging):
    """Lightning's moving average over all weights at once, safe to test after a fit.

    The checkpoint's weights are the averaged ones, the raw ones stand beside them for a resumed
    fit. Lightning's callback takes the raw ones back wherever it loads a checkpoint after a fit,
    the test of the best one included; this one does so at the start of a fit alone.

    The average of sharded weights is sharded like them.

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
                f"decay must lie in [0, 1), got {decay}; at 1 the first step's weights would stay"
            )
        # Buffers are copied, not averaged: constants of a schedule would drift by rounding.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=False, multi_avg_fn=partial(_by_kind, average))
        self.update_every_n_steps = update_every_n_steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Every so many optimizer steps, from the first on."""
        return step_idx is not None and step_idx % self.update_every_n_steps == 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copies the model at the start of a fit."""
        # The injected factories lead to the command, and so to the processes of further ranks,
        # which cannot be copied. The average needs none; nor does it run, and so shards, itself.
        names = ("optimizer", "lr_scheduler", "configure_model")
        factories = {name: vars(pl_module).pop(name, None) for name in names}
        super().setup(trainer, pl_module, stage)
        vars(pl_module).update(
            {name: value for name, value in factories.items() if value is not None}
        )

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shards the average of a sharded model."""
        self._share_out(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shards the average of a sharded model."""
        self._share_out(pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the average in the place of the weights."""
        reshard(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the weights back."""
        reshard(pl_module)
        super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes what the validation of the averaged weights decided, which buffers hold.

        The weights are back by then, so that the decision is in the model alone; the checkpoint of
        this validation, written next, is of the average.
        """
        if self._average_model is not None:
            for held, own in zip(
                self._average_model.module.buffers(), pl_module.buffers(), strict=True
            ):
                held.copy_(own)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the average in the model."""
        reshard(pl_module)
        super().on_train_end(trainer, pl_module)

    def _share_out(self, pl_module: L.LightningModule) -> None:
        """Gives the average of a sharded model its values, and so its parts, once."""
        assert self._average_model is not None
        average = self._average_model.module
        if is_shared(average) or not is_shared(pl_module):
            return
        for name, value in pl_module.named_parameters():
            owner, _, leaf = name.rpartition(".")
            copy = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
            setattr(average.get_submodule(owner), leaf, copy)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Saves the average in place of the weights, and these beside it, both whole.

        In a checkpoint of parts too: what stands beside the weights is one file.
        """
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if is_shared(pl_module):
            for key in ("state_dict", "current_model_state"):
                for name, value in checkpoint.get(key, {}).items():
                    if isinstance(value, DTensor):
                        checkpoint[key][name] = value.full_tensor().cpu()

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes average and raw weights back to continue a fit."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if not is_shared(pl_module):
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            return
        # The strategy has loaded the average into the model.
        assert self._average_model is not None
        self._share_out(pl_module)
        if "current_model_state" in checkpoint:
            self._average_model.n_averaged.copy_(checkpoint["averaging_state"]["n_averaged"])
            raw = checkpoint["current_model_state"]
            set_model_state_dict(pl_module, raw, options=StateDictOptions(full_state_dict=True))


def _by_kind(
    average: Callable[..., None], held: Sequence[Tensor], current: Sequence[Tensor], number: Any
) -> None:
    """Averages shared and whole weights apart, which no kernel takes at once (torch 2.13.0)."""
    for kind in {isinstance(value, DTensor) for value in held}:
        lists = (
            [v for v in values if isinstance(v, DTensor) == kind] for values in (held, current)
        )
        average(*lists, number)
