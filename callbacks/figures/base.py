"""Figures in the run's folder and, as media, with the trackers."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lightning as L
import torch

from callbacks.figures.style import finish, one_size, subject
from callbacks.run.media import send_figure
from callbacks.run.sharded import takes_part, whole_weights
from datamodules.files.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = TypeVar("Batch", bound=tuple[Any, ...])


def save_figure(trainer: L.Trainer, name: str, figure: "Figure") -> Path:
    """Writes ``figures/<name>.png`` in the run's folder and hands it to the trackers.

    Returns:
        Path of the file.
    """
    finish(figure, subject(trainer.lightning_module, trainer.datamodule))  # type: ignore[attr-defined]
    path = Path(trainer.default_root_dir) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    for logger in trainer.loggers:
        send_figure(logger, name, path, trainer.global_step)
    return path


def on_model(batch: Batch, pl_module: L.LightningModule) -> Batch:
    """A batch on the model's device and in its precision."""
    make: Callable[..., Batch] = type(batch)
    dtype = next(pl_module.parameters()).dtype
    fields = (
        field
        if not isinstance(field, torch.Tensor)
        else field.to(pl_module.device, field.dtype if not field.is_floating_point() else dtype)
        for field in batch
    )
    return make(*fields)


class FigureCallback(L.Callback):
    """Base of the callbacks that draw: :meth:`draw` runs once, after the test.

    Rank zero draws, together with the other ranks where the weights are shared out among them.

    A subclass takes the rows it needs from ``trainer.datamodule.split("test")`` and runs the model
    on them; it is called without gradients and in evaluation mode. It makes its figures with
    ``matplotlib.figure.Figure``, which needs no display and no closing.
    """

    @abstractmethod
    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """Figures by file name, without suffix."""

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws and saves."""
        if not takes_part(trainer, pl_module) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with one_size():
            with torch.no_grad(), whole_weights(pl_module):
                figures = self.draw(trainer, pl_module)
            for name, figure in figures.items() if trainer.is_global_zero else ():
                save_figure(trainer, name, figure)
