"""Figures of forecasts: windows with their continuation, error per step, attention."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from callbacks.figures.base import FigureCallback
from datamodules.batches import SeriesBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ForecastFigure(FigureCallback):
    """Observed windows with forecast and truth, the error of each step ahead, and the attention.

    Args:
        num_windows: Windows to draw.
        num_rows: Test rows for the error per step, at most.
    """

    def __init__(self, num_windows: int = 4, num_rows: int = 40_000) -> None:
        self.num_windows, self.num_rows = num_windows, num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures that the model and its data allow."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        test = datamodule.split("test")
        rows = torch.linspace(0, len(test.x) - 1, min(self.num_rows, len(test.x))).long()
        batch = SeriesBatch(*(field[rows].to(pl_module.device) for field in test))
        preds = torch.cat([pl_module(x) for x in torch.split(batch.x, 1000)])
        figures = {"forecast": self._windows(batch, preds)}
        if preds.shape[1] > 1:
            floors = getattr(datamodule, "floors", None)
            bayes = None if floors is None else floors.bayes
            figures["error_per_step"] = _error_per_step(batch.y, preds, bayes)
        weights = _attention(pl_module, batch)
        if weights is not None:
            figures["attention"] = _attention_figure(weights)
        return figures

    def _windows(self, batch: SeriesBatch, preds: torch.Tensor) -> "Figure":
        from matplotlib.figure import Figure

        count = min(self.num_windows, len(preds))
        shown = torch.linspace(0, len(preds) - 1, count + 1)[:-1].long().tolist()
        window, horizon = batch.x.shape[1], preds.shape[1]
        figure = Figure(figsize=(7.2, 1.7 * count + 0.6), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        past, ahead = range(1 - window, 1), range(1, horizon + 1)
        style = {"marker": "o", "markersize": 4} if horizon < 4 else {}
        for axes, row in zip(panels, shown, strict=True):
            axes.plot(past, batch.x[row, :, 0].cpu(), color="gray", label="observed")
            axes.plot(ahead, batch.y[row].cpu(), color="black", label="true", **style)
            axes.plot(ahead, preds[row].cpu(), color="tab:red", label="forecast", **style)
            axes.axvline(0.5, color="lightgray", linewidth=1)
            axes.grid(alpha=0.3)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        panels[-1].set_xlabel("steps from the forecast's origin")
        figure.supylabel("value")
        return figure


def _error_per_step(y: torch.Tensor, preds: torch.Tensor, floor: torch.Tensor | None) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = range(1, preds.shape[1] + 1)
    axes.plot(steps, (preds - y).square().mean(0).cpu(), color="tab:red", label="forecast")
    if floor is not None:
        axes.plot(steps, floor, color="black", linestyle="--", label="optimum")
    axes.set(xlabel="step ahead", ylabel="mean squared error")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _attention(pl_module: L.LightningModule, batch: SeriesBatch) -> torch.Tensor | None:
    some = batch._replace(x=batch.x[:1000])
    weights = getattr(pl_module, "attention_weights", lambda _: None)(some)
    return None if weights is None else weights.cpu()


def _attention_figure(weights: torch.Tensor) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    lags = range(1 - weights.shape[1], 1)
    low, middle, high = weights.quantile(weights.new_tensor([0.1, 0.5, 0.9]), dim=0)
    axes.fill_between(lags, low, high, alpha=0.25, label="80 % of the windows")
    axes.plot(lags, middle, label="median")
    uniform = 1 / weights.shape[1]
    axes.axhline(uniform, color="gray", linestyle=":", label="equal weights")
    axes.set(xlabel="step of the window", ylabel="attention weight", ylim=(0, None))
    axes.legend()
    return figure
