"""Repairs of Lightning, each with what it gains; seen in lightning 2.6.6.

The command and :class:`lit_models.base.LitModule` both use them, and nothing may import the
command: so they stand here, below both. A test of each fails once Lightning needs it no longer
(``tests/test_lightning_repairs.py``): the repair then goes. Gains are of a small model's step
(``python -m scripts.benchmark --only fit``). What goes on before Lightning is imported, and in
W&B, is repaired in :mod:`lit_models.training.startup`.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from operator import or_
from typing import Any, get_args

import lightning as L
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
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


def count_before_share() -> None:
    """Lets the Trainer's options that are a count or a share of batches read ``1`` as one batch.

    For :mod:`typing`, ``Optional[Union[int, float]]`` and ``Optional[Union[float, int]]`` are one
    object, in the order of whoever wrote it first in this process. Where that was scikit-learn,
    the parser tries the share first, and 1.0 are all batches.
    """
    hints = inspect.unwrap(L.Trainer.__init__).__annotations__
    for name, hint in hints.items():
        kinds = get_args(hint)
        if int in kinds and float in kinds:
            hints[name] = reduce(or_, sorted(kinds, key=lambda kind: kind is not int))


class Unprofiled(PassThroughProfiler):
    """Measures nothing, at once.

    Lightning enters the profiler some 80 times a step, and its own default makes a generator each
    time, a thirtieth of a small model's step.
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


def clip_gradients(
    model: L.LightningModule,
    optimizer: Optimizer,
    value: int | float | None,
    algorithm: str | None,
) -> None:
    """Clips, also for a fused optimizer in bfloat16.

    Lightning refuses it in every mixed precision, since a fused optimizer unscales gradients
    itself; without a scaler, as in bfloat16, there is nothing to unscale.

    torch (2.13.0) adds up no norm over shared and whole gradients.
    """
    plugin = model.trainer.precision_plugin
    strategy = model.trainer.strategy
    if value and isinstance(strategy, ModelParallelStrategy) and algorithm in (None, "norm"):
        _clip_mixed(model, float(value))
    elif isinstance(plugin, MixedPrecision) and plugin.scaler is None and value:
        Precision.clip_gradients(
            plugin, optimizer, value, GradClipAlgorithmType(algorithm or "norm")
        )
    else:
        model.clip_gradients(optimizer, value, algorithm)


def _clip_mixed(model: L.LightningModule, value: float) -> None:
    """Clips shared and whole gradients by the norm over both."""
    trained = [p for p in model.parameters() if p.grad is not None]
    parts = [[p for p in trained if isinstance(p.grad, DTensor) == kind] for kind in (True, False)]
    parts = [part for part in parts if part]
    norms: list[Any] = [
        get_total_norm([p.grad for p in part if p.grad is not None]) for part in parts
    ]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(whole))
    for part in parts:
        clip_grads_with_norm_(part, value, total)


def half_precision_inputs(plugin: HalfPrecision) -> Callable[[Any], Any]:
    """Converts the inputs of a half-precision model, but for numbers in a file's units.

    Lightning rounds every number of a batch, also those in float64 that are yet to be centred.
    """

    def convert(value: Tensor) -> Tensor:
        wide = value.dtype == torch.float64 or not value.is_floating_point()
        return value if wide else value.to(plugin._desired_input_dtype)

    return lambda data: apply_to_collection(data, Tensor, convert)


def window_ends(trainer: L.Trainer) -> bool:
    """Whether the batch in progress ends a window of accumulated gradients.

    Lightning knows, also for an epoch's last, shorter window, and has no public word for it.
    """
    return not trainer.fit_loop._should_accumulate()


def run_length(trainer: L.Trainer) -> float:
    """Optimizer steps of a fit; infinite for one that only time or a callback ends.

    ``trainer.estimated_stepping_batches`` sets the Trainer's loader up, and asked before a
    checkpoint is restored the loader's place in the epoch is lost; this asks for a loader of its
    own.
    """
    steps = max_steps(trainer)
    if trainer.max_epochs in (None, -1):
        return steps
    loader = trainer.fit_loop._data_source.dataloader()
    batches: float = len(loader) if hasattr(loader, "__len__") else math.inf
    limit = getattr(trainer, "overfit_batches", 0) or trainer.limit_train_batches
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    if math.isinf(batches):
        return steps
    per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
    return min(steps, per_epoch * trainer.max_epochs)


def max_steps(trainer: L.Trainer) -> float:
    """Most optimizer steps of a fit, whatever its epochs; infinite where none are given."""
    return trainer.max_steps if trainer.max_steps >= 0 else math.inf
