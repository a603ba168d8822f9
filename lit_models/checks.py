"""Options that would fail in the middle of a run, checked before its folder exists."""

import re
from pathlib import Path
from typing import Any

import lightning as L

from datamodules.errors import InputError
from lit_models.base import LitModule

_MAX_SEED = 2**32 - 1  # NumPy's


def check_names(experiment: str, run_id: str | None) -> None:
    """Checks the names that folders, and the W&B run, are called by.

    Raises:
        InputError: If one would lead elsewhere or is no name.
    """
    if experiment in ("", ".", "..") or Path(experiment).name != experiment:
        raise InputError(f"--experiment names one folder of --runs_dir, got {experiment!r}")
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", run_id):
        raise InputError(
            f"--run_id takes up to 128 letters, digits, dots, - and _, got {run_id[:140]!r}"
        )


def check_ranges(config: Any) -> None:
    """Checks numbers of the resolved configuration that Lightning takes as they come.

    Raises:
        InputError: Naming the option and its range.
    """
    seed = config["seed_everything"]
    if not 0 <= int(seed or 0) <= _MAX_SEED:
        raise InputError(f"--seed_everything must lie in [0, {_MAX_SEED}], got {seed}")
    trainer = config["trainer"]
    batches, clip = trainer["accumulate_grad_batches"], trainer["gradient_clip_val"]
    if batches < 1:
        raise InputError(f"--trainer.accumulate_grad_batches must be at least 1, got {batches}")
    if clip is not None and clip < 0:
        raise InputError(f"--trainer.gradient_clip_val must not be negative, got {clip}")


def check_fit(trainer: L.Trainer, model: L.LightningModule, datamodule: Any) -> None:
    """Checks the optimizer's arguments and the rhythm of validation.

    Raises:
        InputError: With the reason that torch gives, or the number of batches there are.
    """
    if isinstance(model, LitModule):
        try:
            model.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer or lr_scheduler: {error}; give it with --model") from error
    every = trainer.val_check_interval
    if isinstance(every, int) and every > 1 and trainer.check_val_every_n_epoch is not None:
        batches = len(datamodule.train_dataloader())
        if every > batches:
            raise InputError(
                f"--trainer.val_check_interval {every} exceeds the {batches} batches of an epoch; "
                "shorten it, or count across epochs with --trainer.check_val_every_n_epoch null"
            )
