"""Parts of the Trainer that cost a run less than Lightning's own."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.profilers import PassThroughProfiler

from lit_models.command.startup import light_wandb


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
