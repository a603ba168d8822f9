"""The whole resolved configuration in the run's folder and in Weights & Biases; metrics as CSV."""

import csv
import importlib.metadata
import platform
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from callbacks.run.media import send_config
from datamodules.files.whole_file import whole_file

PACKAGES = ("torch", "lightning", "torchmetrics", "torch-geometric", "scikit-learn", "wandb")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


class RunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder and hands the same content to the trackers.

    Lightning's own callback sends W&B the flat hyperparameters alone, and refuses a second run in a
    folder.

    Args:
        parser: Parser of the subcommand.
        config: The resolved configuration.
        facts: Further entries for the trackers: commit, versions, command.
    """

    def __init__(self, parser: Any, config: Any, facts: dict[str, Any] | None = None) -> None:
        super().__init__(parser, config, overwrite=True, save_to_log_dir=False)
        self.facts = facts or {}

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Sends the configuration to the trackers, on rank zero."""
        content = yaml.safe_load(self._text) | self.facts
        for logger in trainer.loggers:
            send_config(logger, content, self._text)

    @cached_property
    def _text(self) -> str:
        # Another fit from this file is a run of its own: it neither continues nor is called so.
        config = self.config.clone()
        for name in ("ckpt_path", "run_id"):
            if name in config:
                config[name] = None
        text: str = self.parser.dump(config, skip_none=False, format="yaml")
        return text

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file, once a run that is continued has been read without error."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / "config.yaml") as file:
                file.write(self._text)


class MetricsCSV(CSVLogger):
    """``metrics.csv`` in the run's folder, continued by a resumed run.

    Lightning's logger deletes the file of the run it continues.

    Args:
        folder: The run's folder.
        resume_step: Optimizer step a resumed run starts from; later rows are dropped, since the run
            will write them again. None starts a new file.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        super().__init__(folder, name="", version="")
        self._earlier: list[dict[str, Any]] = []
        path = folder / "metrics.csv"
        if resume_step is not None and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            self._earlier = [row for row in rows if int(row["step"]) < resume_step]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer, holding the rows of the run that is continued."""
        writer = super().experiment
        if self._earlier:
            writer.metrics, self._earlier = self._earlier, []
        return writer
