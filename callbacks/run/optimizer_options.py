"""The optimizer's options of a continued run are those of its command line."""

import sys
from typing import Any

import lightning as L
from torch.optim import Optimizer

Options = dict[str, Any]


class OptimizerOptions(L.Callback):
    """Puts options of the optimizer that were changed for a continued run in force.

    Lightning restores all of a checkpoint's, so that ``--model.optimizer.lr 1e-8`` on resume was
    recorded and not used. Here an option that differs from the one the run was configured with
    takes its new value; the others, and what a schedule has made of them, stay as restored. A new
    rate scales the schedule's current one.
    """

    def __init__(self) -> None:
        self._configured: list[list[Options]] = []
        self._classes: list[str] = []
        self._saved: list[list[Options]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The optimizers' classes and the options the run was configured with."""
        return {"options": self._configured, "classes": self._classes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Those of the run that is continued."""
        self._saved = state_dict["options"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes classes and options before a checkpoint's are restored."""
        self._configured = [_options(optimizer) for optimizer in trainer.optimizers]
        self._classes = [type(optimizer).__qualname__ for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts changed options in force."""
        if trainer.ckpt_path is None:
            return
        # An earlier version saved none: what was restored is the next best.
        saved = self._saved or [_options(optimizer) for optimizer in trainer.optimizers]
        changes: dict[str, str] = {}
        for optimizer, new, old in zip(trainer.optimizers, self._configured, saved, strict=True):
            for index, (wanted, given) in enumerate(zip(new, old, strict=True)):
                for name, value in wanted.items():
                    if name in given and value != given[name]:
                        _set(trainer, optimizer, index, name, value, given[name])
                        changes[name] = f"{name} {value} (was {given[name]})"
        if changes and trainer.is_global_zero:
            sys.stderr.write(f"lit-models: continued with {', '.join(changes.values())}\n")


def _options(optimizer: Optimizer) -> list[Options]:
    """Options of each group; the rate as it was given, not as a schedule has changed it."""
    groups = []
    for group in optimizer.param_groups:
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in group.items()
            if isinstance(value, (bool, int, float, str, tuple))
        }
        if "initial_lr" in options:
            options["lr"] = options.pop("initial_lr")
        groups.append(options)
    return groups


def _set(
    trainer: L.Trainer, optimizer: Optimizer, index: int, name: str, value: Any, old: Any
) -> None:
    group = optimizer.param_groups[index]
    if name != "lr":
        group[name] = tuple(value) if isinstance(value, list) else value
        return
    group["lr"] = group["lr"] * value / old if old else value
    if "initial_lr" in group:
        group["initial_lr"] = value
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if scheduler.optimizer is optimizer and hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs[index] = value
