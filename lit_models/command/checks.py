"""Options that would fail in the middle of a run, checked before its folder exists."""

import re
from inspect import Parameter
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import lightning as L
from lightning.pytorch.callbacks import LearningRateFinder

import datamodules
from datamodules.base import LitDataModule
from datamodules.errors import InputError
from lit_models.base import LitModule
from lit_models.command.classes import arguments_of, may_be_none, named_class
from lit_models.command.linking import linked_sizes

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


def check_pair(model: type, datamodule: type) -> None:
    """Checks that the data come in the batches that the model takes.

    Args:
        model: Class of the model; one of a user's own may say nothing of its batches.
        datamodule: Class of the datamodule; likewise.

    Raises:
        InputError: Naming both kinds of batches and the datamodules that would do.
    """
    wanted, given = _wanted_batch(model), _batch_types(datamodule)
    if wanted is Any or not given or wanted in given:
        return
    others = [
        name for name in dir(datamodules) if wanted in _batch_types(getattr(datamodules, name))
    ]
    raise InputError(
        f"{model.__name__} takes batches of {wanted.__name__}, {datamodule.__name__} gives "
        f"{' or '.join(kind.__name__ for kind in given)}; choose --data from {', '.join(others)}"
    )


def check_links(experiment: str, own: type, chosen: type) -> None:
    """Checks that an experiment of links is not given data whose targets are nodes.

    Args:
        experiment: Its name.
        own: Class of the experiment's own data.
        chosen: Class of the data that it is given.

    Raises:
        InputError: Naming what fits the experiment, and what the data.
    """
    if getattr(own, "predicts_links", False) and not getattr(chosen, "predicts_links", False):
        raise InputError(
            f"{experiment} predicts links, {chosen.__name__} gives targets of nodes or graphs; use "
            f"--data LinkDataModule for links, or --config graph_network for what it gives"
        )


def _wanted_batch(model: type) -> Any:
    """Kind of batch that ``step`` takes; Any where it does not say."""
    return get_type_hints(model.step).get("batch", Any) if issubclass(model, LitModule) else Any


def _batch_types(datamodule: Any) -> tuple[Any, ...]:
    """B of the LitDataModule[B] that a class is, or its kinds; none where nobody says."""
    for base in getattr(datamodule, "__mro__", ()):
        for generic in vars(base).get("__orig_bases__", ()):
            if get_origin(generic) is LitDataModule:
                (kind,) = get_args(generic)
                return () if kind is Any else get_args(kind) or (kind,)
    return ()


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


def check_nulls(config: Any) -> None:
    """Checks that no argument of the model or the data is null which its type does not let be.

    The parser takes null as "not given" and hands it on all the same (jsonargparse 4.4x).

    Raises:
        InputError: Naming the option and its default.
    """
    for part in ("model", "data"):
        made = named_class(config[part]["class_path"])
        told = set(linked_sizes(made)) if part == "model" else set()
        arguments = arguments_of(made)
        for name, value in dict(config[part].get("init_args") or {}).items():
            if value is not None or name in told or may_be_none(made, name):
                continue
            default = arguments[name].default if name in arguments else Parameter.empty
            given = "" if default is Parameter.empty else f" for its default, {default!r}"
            raise InputError(f"--{part}.{name} is null; give a value, or leave it out{given}")


def _check_batches(model: LitModule, datamodule: Any) -> None:
    """Checks the batches of data whose options decide between kinds of them."""
    kinds = _batch_types(type(datamodule))
    wanted = _wanted_batch(type(model))
    made = type(datamodule.split("train")) if len(kinds) > 1 else wanted
    if made is not wanted and made in kinds:
        raise InputError(
            f"{type(model).__name__} takes batches of {wanted.__name__}, with these --data options "
            f"{type(datamodule).__name__} gives {made.__name__}; its --help names the options"
        )


def _check_rate_finder(trainer: L.Trainer, model: L.LightningModule) -> None:
    finders = (isinstance(each, LearningRateFinder) for each in trainer.callbacks)  # type: ignore[attr-defined]
    if any(finders) and not {"lr", "learning_rate"} & set(dir(model)):
        raise InputError(
            "LearningRateFinder changes the attribute `lr` of a model, which a "
            f"{type(model).__name__} has not; try several --model.optimizer.lr, as docs/sweeps.md "
            "shows"
        )


def check_fit(trainer: L.Trainer, model: L.LightningModule, datamodule: Any) -> str | None:
    """Checks the kind of batches, the optimizer's arguments and the rhythm of validation.

    Returns:
        Name of the optimizer's class, where the model is one of ours.

    Raises:
        InputError: With the reason that torch gives, or the number of batches there are.
    """
    _check_rate_finder(trainer, model)
    optimizer = None
    if isinstance(model, LitModule):
        _check_batches(model, datamodule)
        try:
            optimizer = model.check_optimizers(trainer)
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
    return optimizer
