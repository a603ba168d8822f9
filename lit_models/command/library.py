"""From Python: a run's folder read back, and predictions as a table."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser

from callbacks.run.predictions import in_row_order
from callbacks.run.reproducible import StepSeed
from datamodules.base import LitDataModule
from datamodules.errors import InputError
from lit_models.base import LitModule
from lit_models.command.catalog import load_yaml
from lit_models.command.classes import class_arguments, named_class
from lit_models.command.linking import link_sizes, size_of
from lit_models.command.messages import one_line
from lit_models.command.trust import (
    check_calls,
    check_root,
    denied,
    foreign_classes,
    restricted_imports,
)
from lit_models.weights.checkpoints import check_compatible, read_checkpoint

if TYPE_CHECKING:
    import pandas as pd


class LoadedRun(NamedTuple):
    """What a run's folder holds.

    Attributes:
        model: The model with the checkpoint's weights, in evaluation mode.
        datamodule: The data as the run had them; nothing is read yet.
    """

    model: LitModule
    datamodule: LitDataModule[Any]


def load(
    run_folder: str | Path,
    checkpoint: Literal["best", "last"] = "best",
    *,
    data: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> LoadedRun:
    """Gives model and datamodule of a run back.

    Both are made from the run's ``config.yaml``. The data take what the checkpoint knows of them
    (types, categories, classes, vocabulary, scales), so that new rows are read as those of the run
    were and predictions need no training file.

    Args:
        run_folder: Folder of one run, ``runs/<experiment>/<run id>``.
        checkpoint: Which of its checkpoints.
        data: Arguments of the datamodule that differ from the run's, such as
            ``{"predict_path": "new.csv"}``.
        allow: Class paths of ``config.yaml`` from other packages than this project, torch and
            lightning; a folder that somebody hands on runs no code of theirs without it.

    Returns:
        ``(model, datamodule)``; call ``model.train()`` before training on.

    Raises:
        InputError: If the folder holds no such run or one that does not fit its checkpoint, names
            a class that is not allowed, or an argument is unknown or wrong.

    Example:
        ::

            model, data = lit_models.load("runs/table/first", data={"predict_path": "new.csv"})
            frame = lit_models.predict_frame(model, data)
    """
    folder = Path(run_folder)
    path = _config_of(folder)
    weights = folder / "checkpoints" / f"{checkpoint}.ckpt"
    if not weights.exists():
        raise InputError(f"{folder} has no checkpoint {checkpoint!r}; the run never saved one")
    config = load_yaml(path)
    for name in foreign_classes(config):
        if name not in allow:
            raise InputError(
                f"{path} names {name}, which is neither of this project nor of torch or "
                f"lightning; if you trust it, load with allow=[{name!r}]"
            )
    check_root(path, config, [dict(data or {})], 'data={"root": ...}, here ')
    state = read_checkpoint(weights)
    with restricted_imports(True, allow):
        model, datamodule = _make(path, _sections(path, config, data or {}), state)
    if str(config.get("trainer", {}).get("precision")).startswith("64"):
        model.double()
    check_compatible(weights, state, model)
    model.on_load_checkpoint(state)
    model.load_state_dict(state["state_dict"])
    return LoadedRun(model.eval(), datamodule)


def _config_of(folder: Path) -> Path:
    """The configuration of a run's folder."""
    path = folder / "config.yaml"
    if path.is_file():
        return path
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give that of a run, runs/<experiment>/<id>")
    runs = sorted(folder.glob("*/config.yaml"), key=lambda run: run.stat().st_mtime_ns)
    hint = f"its newest run is {runs[-1].parent}" if runs else "give runs/<experiment>/<run id>"
    raise InputError(f"{folder} is not the folder of a run: it has no config.yaml; {hint}")


def _sections(path: Path, config: Any, data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Class and arguments of model and data."""
    sections: dict[str, dict[str, Any]] = {}
    for part in ("model", "data"):
        section = config.get(part)
        if not isinstance(section, dict) or not isinstance(section.get("class_path"), str):
            raise InputError(f"{path} names no class of the {part}; give the folder of a run")
        sections[part] = section | {"init_args": dict(section.get("init_args") or {})}
    # The checkpoint holds what these weights have become.
    sections["model"]["init_args"].pop("pretrained", None)
    sections["data"]["init_args"].update(data)
    return sections


def _make(
    path: Path, sections: dict[str, Any], state: dict[str, Any]
) -> tuple[LitModule, LitDataModule[Any]]:
    """Model and data, of the sizes that the run's own data had."""
    model = _imported(path, sections["model"]["class_path"])
    datamodule = _imported(path, sections["data"]["class_path"])
    given = sections["model"]["init_args"]

    def size(data: Any, name: str) -> Any:
        _tell(data, state)
        return size_of(data, name, model, given.get(name))

    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True)
    link_sizes(parser, model, size)
    try:
        config = parser.parse_object(sections)
        check_calls(config)
        parts = parser.instantiate_classes(config)
    except ArgumentError as error:
        reason = denied(str(error), True)
        if reason is not None:
            raise InputError(f"{path}: {reason}") from error
        known = ", ".join(class_arguments(sections["data"]["class_path"]))
        raise InputError(
            f"{path}: {one_line(str(error))}; {datamodule.__name__} takes {known}"
        ) from error
    except ValueError as error:
        # The parser wraps what the data raise while they tell a size.
        raise error.__cause__ if isinstance(error.__cause__, InputError) else error from None
    _tell(parts["data"], state)
    return parts["model"], parts["data"]


def _imported(path: Path, class_path: str) -> Any:
    try:
        return named_class(class_path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: no class {class_path} can be imported ({error})") from error


def _tell(datamodule: Any, state: dict[str, Any]) -> None:
    """Tells the data, once, what the checkpoint knows of them."""
    known = state.pop(type(datamodule).__qualname__, None)
    if known is not None:
        datamodule.load_state_dict(known)


def predict_frame(
    model: LitModule,
    datamodule: LitDataModule[Any],
    *,
    seed: int = 0,
    trainer: L.Trainer | None = None,
) -> "pd.DataFrame":
    """Predictions as a table, the one that ``lit-models predict`` writes.

    Args:
        model: The model, fitted or loaded.
        datamodule: The data; it names the rows to predict (``predict_path``, else the test rows).
        seed: Seed of a model that draws: the run's ``seed_everything``.
        trainer: Where to predict; by default one device, an accelerator where there is one.

    Returns:
        One row per sample, in the order of the data and in the units of the user's file.

    Raises:
        InputError: If there is nothing to predict, or a row is not as those of the training.

    Example:
        >>> from datamodules import LinearDataModule
        >>> from lit_models import LitLinearRegression
        >>> data = LinearDataModule(num_samples=50, in_features=2)
        >>> frame = predict_frame(LitLinearRegression(in_features=2), data)
        >>> list(frame.columns)
        ['prediction', 'target']
    """
    if trainer is None:
        with _without_advice():
            trainer = L.Trainer(
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[StepSeed(seed)],
            )
    if trainer.world_size > 1:
        raise InputError(
            f"a table of all rows needs one process, the trainer has {trainer.world_size}; "
            "use `lit-models predict` for several"
        )
    with _without_advice():
        outputs: Any = trainer.predict(model, datamodule=datamodule)
    loader: Any = trainer.predict_dataloaders
    rows = [loader.rows(index) for index in range(len(outputs))]
    columns = in_row_order(rows, outputs)
    return datamodule.prediction_frame(
        {name: values.detach().cpu() for name, values in columns.items()}
    )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leaves out what Lightning says of devices and loaders that nobody has chosen."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Couldn't infer the batch indices.*")
        warnings.filterwarnings("ignore", r".*GPU available but not used.*")
        logger.setLevel(max(level, logging.WARNING))
        try:
            yield
        finally:
            logger.setLevel(level)
