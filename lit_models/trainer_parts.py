"""Parts of the Trainer that cost a run less than Lightning's own."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.profilers import PassThroughProfiler

from lit_models.startup import light_wandb


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
