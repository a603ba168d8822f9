"""The trackers of a run: Weights & Biases and ``metrics.csv``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from callbacks.run.tracking import MetricsCSV
from datamodules.errors import InputError
from lit_models.command.lightning_repairs import RunWandbLogger

_WANDB_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")


@dataclass
class WandbOptions:
    """Weights & Biases.

    Attributes:
        project: Project of the run.
        mode: ``online``, ``offline`` or ``disabled``; unset follows the variable WANDB_MODE, and
            without it records offline, but online under ``wandb agent``.
        name: Name of the run; experiment and run id by default.
        group: Group of the run.
        tags: Tags of the run.
        log_model: Whether checkpoints become artifacts; needs mode online.
    """

    project: str = "lit-models"
    mode: Literal["online", "offline", "disabled"] | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    log_model: bool = False


def run_loggers(config: Any, run_dir: Path, fits: bool, resume_step: int | None) -> list[Logger]:
    """The loggers of a run.

    Args:
        config: The resolved configuration.
        run_dir: The run's folder.
        fits: Whether the run trains, and so writes ``metrics.csv``.
        resume_step: Optimizer step that a continued run starts from; None for a new run.

    Raises:
        InputError: If WANDB_MODE is none of W&B's.
    """
    loggers: list[Logger] = []
    mode = _wandb_mode(config["wandb"]["mode"])
    os.environ["WANDB_MODE"] = mode
    if mode != "disabled" and not config["trainer"]["fast_dev_run"]:
        loggers.append(_wandb(config["wandb"], config["experiment"], run_dir))
    if fits:
        loggers.append(MetricsCSV(run_dir, resume_step))
    return loggers


def _wandb_mode(given: str | None) -> str:
    # The server of a sweep waits for the runs it has asked an agent for.
    default = "online" if "WANDB_SWEEP_ID" in os.environ else "offline"
    mode = given or os.environ.get("WANDB_MODE", default)
    if mode not in _WANDB_MODES:
        raise InputError(f"WANDB_MODE is {mode!r}; set it to online, offline or disabled")
    return mode


def _wandb(options: Any, experiment: str, run_dir: Path) -> Logger:
    os.environ.setdefault("WANDB_SILENT", "true")
    logger = RunWandbLogger(
        project=options["project"],
        name=options["name"] or f"{experiment}-{run_dir.name}",
        id=run_dir.name,
        # W&B's process may have been started from another folder.
        save_dir=str(run_dir.absolute()),
        group=options["group"],
        tags=options["tags"],
        log_model=options["log_model"],
        resume="allow",
    )
    # An argument that wandb has withdrawn, and warns about.
    vars(logger).get("_wandb_init", {}).pop("anonymous", None)
    return logger
