"""Repairs of Lightning, each with the version it was seen in and what it gains.

The command and :class:`lit_models.base.LitModule` both use them, and nothing may import the
command: so they stand here, below both. A test of each fails once Lightning needs it no longer.
Gains are of a small model's step (``python -m scripts.benchmark --only fit``), lightning 2.6.6.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch.optim import Optimizer

from lit_models.training.startup import light_wandb


class RunWandbLogger(WandbLogger):
    """W&B without its job launcher, which a run that it did not start has no use for."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at the first call."""
        with light_wandb():
            return super().experiment


class Unprofiled(PassThroughProfiler):
    """Measures nothing, at once.

    Lightning enters the profiler some 80 times a step, and its own default makes a generator each
    time, a thirtieth of a small model's step (``python -m scripts.benchmark --only fit``).
    """

    _nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """One context for all actions."""
        return self._nothing


_BATCH_HOOKS = [
    name
    for name in vars(Callback)
    if "_batch_" in name or name.startswith(("on_before_", "on_after_"))
]


def hide_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Lets Lightning pass by the hooks of a batch that a callback leaves as they are.

    Lightning calls six of them at every step, a sixteenth of a small model's step; a hook that is
    None it leaves out.
    """
    for callback in callbacks:
        for name in _BATCH_HOOKS:
            defined = getattr(type(callback), name) is not getattr(Callback, name)
            if not defined and name not in vars(callback):
                setattr(callback, name, None)


class QuickHookNames(L.LightningModule):
    """Notes the running hook's name without torch's search among parameters and submodules.

    Lightning does so some 50 times a step, a thirtieth of a small model's step.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def allow_fused_clipping(optimizer: Optimizer, trainer: L.Trainer | None) -> None:
    """Lets Lightning clip for a fused optimizer in bfloat16.

    It refuses in every mixed precision, since a fused optimizer unscales gradients itself; without
    a scaler, as in bfloat16, there is nothing to unscale.
    """
    plugin = None if trainer is None else trainer.precision_plugin
    if getattr(plugin, "scaler", None) is None:
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def clip_gradients(
    model: L.LightningModule,
    optimizer: Optimizer,
    value: int | float | None,
    algorithm: str | None,
) -> None:
    """Clips; the second place in which Lightning refuses a fused optimizer in bfloat16."""
    plugin = model.trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None and value:
        # Lightning fears scaled gradients; without a scaler there are none.
        Precision.clip_gradients(
            plugin, optimizer, value, GradClipAlgorithmType(algorithm or "norm")
        )
    else:
        model.clip_gradients(optimizer, value, algorithm)


def window_ends(trainer: L.Trainer) -> bool:
    """Whether the batch in progress ends a window of accumulated gradients.

    Lightning knows, also for an epoch's last, shorter window, and has no public word for it.
    """
    return not trainer.fit_loop._should_accumulate()
