"""Figures of generated pictures: a grid by class, and how a few of them come out of noise."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback, save_figure
from callbacks.figures.style import one_size
from callbacks.run.sharded import takes_part, whole_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ImageGrid(FigureCallback):
    """Generated images, a column per class where there are classes, after test and predict.

    ``image_grid`` shows finished ones, ``image_process`` the way of a few of them out of the noise.

    Args:
        num_rows: Rows of the grid.
        num_columns: Columns of the grid, at most.
        num_paths: Images whose way is shown; 0 leaves it out.
    """

    def __init__(self, num_rows: int = 8, num_columns: int = 10, num_paths: int = 4) -> None:
        self.num_rows, self.num_columns, self.num_paths = num_rows, num_columns, num_paths

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures; nothing for samples that are no images."""
        model: Any = pl_module
        if len(model.sample_shape) != 3:
            return {}
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        ends = datamodule.value_range
        names = [str(name) for name in datamodule.class_names][: self.num_columns]
        columns = len(names) or self.num_columns
        count = self.num_rows * columns
        y = torch.arange(count, device=model.device) % columns if names else None
        images = model.sample(count, y, seed=0).float().cpu()
        cells = [_picture(image, *ends) for image in images]
        figures = {"image_grid": _grid(cells, columns, names)}
        if self.num_paths:
            times, paths = self._paths(model, min(self.num_paths, columns), bool(names))
            cells = [_picture(image, *ends) for step in paths.transpose(0, 1) for image in step]
            figures["image_process"] = _grid(cells, len(times), [f"t = {t}" for t in times])
        return figures

    def _paths(self, model: Any, count: int, conditional: bool) -> tuple[list[int], Tensor]:
        """Steps kept, and the images there, ``(kept, B, C, H, W)``."""
        y = torch.arange(count, device=model.device) if conditional else None
        draws = model.draws(count, stream=2, seed=0)
        x = draws.normal(model.sample_shape, next(model.parameters()).dtype)
        steps = model.ddpm.sampler_steps.t.tolist()
        keep = set(torch.linspace(0, len(steps) - 1, min(len(steps), 9)).long().tolist())
        times, kept = [model.ddpm.diffusion.num_steps], [model.x_scaler.inverse(x).float().cpu()]
        for i, images in enumerate(model.ddpm.reverse(x, draws, y)):
            if i in keep:
                times.append(steps[i])
                kept.append(model.x_scaler.inverse(images).float().cpu())
        return times, torch.stack(kept)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws and saves."""
        if not takes_part(trainer, pl_module):
            return
        with torch.no_grad(), whole_weights(pl_module), one_size():
            figures = self.draw(trainer, pl_module)
        if trainer.is_global_zero:
            for name, figure in figures.items():
                save_figure(trainer, name, figure)


def _picture(image: Tensor, low: float, high: float) -> Tensor:
    """An image ``(C, H, W)`` as ``(H, W)`` or ``(H, W, 3)`` numbers from 0 to 1."""
    channels = image[:3] if len(image) >= 3 else image[:1]
    span = high - low if high > low else 1.0
    return ((channels - low) / span).clamp(0, 1).permute(1, 2, 0).squeeze(-1)


def _grid(cells: list[Tensor], columns: int, titles: list[str]) -> "Figure":
    """Pictures row by row, a title above each column."""
    from matplotlib.figure import Figure

    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(0.7 * columns, 0.7 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, cell in zip(panels.flat, cells, strict=False):
        axes.imshow(cell, cmap="gray", vmin=0, vmax=1)
    for axes, title in zip(panels[0], titles, strict=False):
        axes.set_title(title if len(title) < 10 else f"{title[:8]}…")
    return figure
