"""What a tracker gets of a run beside its metrics: figures, texts and the configuration.

Weights & Biases, TensorBoard and MLflow; a logger of another kind is left alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from datamodules.files.images import read_image

_MLFLOW_LENGTH = 500  # characters of a value, in older versions


def send_figure(logger: Logger, name: str, path: Path, step: int) -> None:
    """Hands a drawn figure over.

    Args:
        logger: Tracker.
        name: Name of the figure.
        path: Its PNG file.
        step: Optimizer step it belongs to.
    """
    if isinstance(logger, WandbLogger):
        logger.log_image(f"figures/{name}", [str(path)])
    elif isinstance(logger, TensorBoardLogger):
        pixels = read_image(path, None, "rgb")
        logger.experiment.add_image(f"figures/{name}", pixels, step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "figures")


def send_rows(
    logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
) -> None:
    """Hands a table of texts over, as a table or as one text."""
    text = "\n\n---\n\n".join("\n\n".join(row) for row in rows)
    if isinstance(logger, WandbLogger):
        import wandb

        table = wandb.Table(columns=list(columns))  # whole rows at once would load pandas
        for row in rows:
            table.add_data(*row)
        logger.log_metrics({name: table})
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(name, text, step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_text(logger.run_id, text, f"{name}.txt")


def send_config(logger: Logger, content: Mapping[str, Any], text: str) -> None:
    """Hands the resolved configuration over; a continued run may bring another.

    Args:
        logger: Tracker.
        content: The configuration and facts of the run.
        text: The configuration as YAML.
    """
    if isinstance(logger, WandbLogger):
        logger.experiment.config.update(dict(content), allow_val_change=True)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("config", f"```yaml\n{text}\n```")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_text(logger.run_id, text, "config.yaml")
        known = logger.experiment.get_run(logger.run_id).data.params  # which are never overwritten
        flat = dict(_flat(content))
        logger.log_hyperparams(
            {name: str(v)[:_MLFLOW_LENGTH] for name, v in flat.items() if name not in known}
        )


def _flat(content: Mapping[str, Any], name: str = "") -> Any:
    for key, value in content.items():
        inner = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, inner)
        else:
            yield inner, value
