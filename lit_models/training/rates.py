"""When a schedule advances, and how long it is.

torch's schedules leave it to the loop when they advance. Those that speak of steps (``OneCycleLR``,
``CyclicLR`` and the schedules of :mod:`lit_models.optim`) advance at every optimizer step, all
others every epoch. A schedule without a length is told that of the run.
"""

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from datamodules.errors import InputError

Interval = Literal["step", "epoch"]

_PER_STEP = (OneCycleLR, CyclicLR)


def make_schedule(factory: Callable[..., Any], optimizer: Optimizer, length: float | None) -> Any:
    """The schedule; one whose constructor asks for the run's length is given it.

    Args:
        factory: Makes it from the optimizer.
        optimizer: The optimizer.
        length: Optimizer steps of the run; None outside a Trainer.

    Raises:
        InputError: If it asks for the length of a run that has none.
    """
    if length is None or not _wants_length(factory):
        return factory(optimizer)
    if math.isinf(length):
        raise InputError(
            "OneCycleLR needs the length of the run, which has none; give "
            "--model.lr_scheduler.total_steps, --trainer.max_steps or --trainer.max_epochs"
        )
    return factory(optimizer, total_steps=int(length))


def _wants_length(factory: Callable[..., Any]) -> bool:
    """Whether a class, or a partial call of one, is OneCycleLR without a length."""
    given: Mapping[str, Any] = {}
    made: tuple[Any, ...] = (factory,)
    if isinstance(factory, functools.partial):
        # The command's partial calls name the class among their arguments (jsonargparse 4.4x).
        given, made = factory.keywords, (factory.func, *factory.args)
    names = ("total_steps", "epochs", "steps_per_epoch")
    is_cycle = any(inspect.isclass(part) and issubclass(part, OneCycleLR) for part in made)
    return is_cycle and all(given.get(name) is None for name in names)


def schedule_config(
    scheduler: Any, interval: Interval | None, trainer: L.Trainer | None
) -> dict[str, Any]:
    """Lightning's description of when a schedule advances, and on what.

    Args:
        scheduler: The schedule.
        interval: When it advances; None asks its class.
        trainer: Trainer of the fit.

    Raises:
        InputError: If it watches a validation that is never made.
    """
    default = "step" if isinstance(scheduler, _PER_STEP) else "epoch"
    config: dict[str, Any] = {
        "scheduler": scheduler,
        "interval": interval or getattr(scheduler, "interval", default),
    }
    if isinstance(scheduler, ReduceLROnPlateau):
        monitor = getattr(scheduler, "monitor", "val/loss")
        config |= {"monitor": monitor, "interval": "epoch", "reduce_on_plateau": True}
        if trainer is not None and monitor.startswith("val/"):
            if trainer.limit_val_batches == 0:
                raise InputError(
                    f"ReduceLROnPlateau watches {monitor}, and limit_val_batches 0 makes no "
                    "validation; watch train/loss by lightning.pytorch.cli.ReduceLROnPlateau"
                )
            config["frequency"] = trainer.check_val_every_n_epoch or 1
            config["strict"] = trainer.check_val_every_n_epoch is not None
    return config


def has_open_length(scheduler: Any, factory: Callable[..., Any]) -> bool:
    """Whether a schedule was given no length of its own."""
    if isinstance(scheduler, OneCycleLR):
        return _wants_length(factory)
    return getattr(scheduler, "total_steps", 0) is None


def tell_length(scheduler: Any, trainer: L.Trainer) -> None:
    """Tells a schedule the length of the run.

    Args:
        scheduler: The schedule, restored where a run is continued.
        trainer: Trainer of the fit.
    """
    length = float(trainer.estimated_stepping_batches)
    if isinstance(scheduler, OneCycleLR):
        _stretch_cycle(scheduler, int(length))
        return
    old, scheduler.total_steps = scheduler.total_steps, None if math.isinf(length) else int(length)
    if old not in (None, scheduler.total_steps) and isinstance(scheduler, LambdaLR):
        # The rate of the step that comes next is still that of the shorter run.
        factors = (factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas)
        for group, rate, factor in zip(
            scheduler.optimizer.param_groups, scheduler.base_lrs, factors, strict=True
        ):
            group["lr"] = rate * factor
    if math.isinf(length) and trainer.is_global_zero:
        sys.stderr.write(
            f"lit-models: the run has no length, so {type(scheduler).__name__} stays at its "
            "rate after the warm-up; --model.lr_scheduler.total_steps gives it one\n"
        )


def _stretch_cycle(scheduler: OneCycleLR, length: int) -> None:
    """Gives a restored cycle, which holds the steps of its first run, another length."""
    old = scheduler.total_steps
    for phase in scheduler._schedule_phases:
        phase["end_step"] = (phase["end_step"] + 1) * length / old - 1
    scheduler.total_steps = length
