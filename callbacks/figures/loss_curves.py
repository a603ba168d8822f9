"""Training and validation loss over the run, with the optimum where it is known."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L

from callbacks.figures.base import FigureCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "mse": "mean squared error",
    "nll": "negative log-likelihood in nats",
}
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
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for name in shown:
            marker = "o" if len(curves[name][0]) == 1 else ""
            axes.plot(*curves[name], label=name, marker=marker)
        values = [value for name in shown for value in curves[name][1]]
        label, known = self._known(trainer, pl_module)
        said, best = known or ("", 0.0)
        if best >= 0 < min(values) * 10 < max(values):  # no logarithm where the optimum is negative
            axes.set_yscale("log")
            said += " (below the axis)" if known and best == 0 else ""
        if known is not None:
            axes.axhline(best, color="black", linestyle="--", linewidth=1, label=said)
        axes.set_xlim(left=0)
        axes.set(xlabel="optimizer step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
        return {"loss_curves": figure}

    @staticmethod
    def _known(
        trainer: L.Trainer, pl_module: L.LightningModule
    ) -> tuple[str, tuple[str, float] | None]:
        """The loss by the name of the metric that it is; its optimum, else its best rival."""
        scores: Mapping[str, float] = getattr(pl_module, "scores", {})
        loss = scores.get("test/loss")
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        label = "loss"
        for name, value in scores.items():
            if not name.startswith("test/") or loss is None or not _equal(value, loss):
                continue
            if name != "test/loss":
                label = f"loss: {_spelt(name.removeprefix('test/'))}"
            optimum = getattr(datamodule, "optimum", {}).get(name)
            if optimum is not None:
                return label, (f"optimum {optimum.value:.4g}", optimum.value)
            for published in (datamodule, pl_module):
                rivals = getattr(published, "rivals", {}).get(name)
                if rivals:
                    best, score = min(rivals.items(), key=lambda rival: rival[1])
                    return label, (f"{best} {score:.4g}", score)
        return label, None


def _spelt(metric: str) -> str:
    """A metric's name with its unit."""
    spelt = _NAMES.get(metric, metric.replace("_", " "))
    return spelt.replace("cross entropy", "cross-entropy in nats")


def _equal(value: float, loss: float) -> bool:
    return abs(value - loss) <= 1e-5 * abs(loss)
