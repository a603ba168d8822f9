"""Training and validation loss over the run, with the optimum where it is known."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from callbacks.figures.base import FigureCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[list[int], list[float]]


def read_curves(path: Path) -> dict[str, Curve]:
    """Steps and values of every column of a ``metrics.csv``."""
    curves: dict[str, Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(int(row["step"]) + 1)
                    values.append(float(value))
    return curves


class LossCurves(FigureCallback):
    """Draws ``train/loss`` and ``val/loss`` from the run's ``metrics.csv``."""

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figure; nothing for a run that logged no loss."""
        from matplotlib.figure import Figure

        path = Path(trainer.default_root_dir) / "metrics.csv"
        curves = read_curves(path) if path.is_file() else {}
        shown = [name for name in ("train/loss", "val/loss") if name in curves]
        if not shown:
            return {}
        figure = Figure(figsize=(6.4, 4.0))
        axes = figure.subplots()
        for name in shown:
            marker = "o" if len(curves[name][0]) == 1 else ""
            axes.plot(*curves[name], label=name, marker=marker)
        if all(value > 0 for name in shown for value in curves[name][1]):
            axes.set_yscale("log")
        axes.set(xlabel="optimizer step", ylabel="loss", title=type(pl_module).__name__)
        axes.grid(alpha=0.3)
        axes.legend()
        return {"loss_curves": figure}
