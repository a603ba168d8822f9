"""Figures of forecasts at the nodes of a graph."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from callbacks.figures.base import FigureCallback, on_model
from callbacks.figures.style import part_of
from datamodules.batches import GraphSeriesBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NodeForecastFigure(FigureCallback):
    """Windows of some nodes with forecast and truth, and the error of each node and step ahead.

    Args:
        num_nodes: Nodes to draw, evenly spaced.
        num_rows: Test windows for the errors, at most.
    """

    def __init__(self, num_nodes: int = 4, num_rows: int = 2000) -> None:
        self.num_nodes, self.num_rows = num_nodes, num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        test = datamodule.split("test")
        rows = torch.linspace(0, len(test.x) - 1, min(self.num_rows, len(test.x))).long()
        batch = test._replace(x=test.x[rows], y=test.y[rows])
        parts = (
            batch._replace(x=batch.x[start : start + 200], y=batch.y[start : start + 200])
            for start in range(0, len(rows), 200)
        )
        preds = torch.cat([pl_module(on_model(part, pl_module)).cpu() for part in parts])
        names = getattr(datamodule, "nodes", None) or [str(i) for i in range(preds.shape[2])]
        floors = getattr(datamodule, "floors", None)
        shown, known = part_of(len(rows), len(test.x), "test windows"), _known(datamodule)
        return {
            "forecast": self._windows(batch, preds, names, len(test.x)),
            "error_per_node": _error_per_node(batch.y, preds, shown, known),
            **_error_per_step(batch.y, preds, shown, floors),
        }

    def _windows(
        self, batch: GraphSeriesBatch, preds: torch.Tensor, names: "list[str]", num_windows: int
    ) -> "Figure":
        from matplotlib.figure import Figure

        count = min(self.num_nodes, preds.shape[2])
        nodes = torch.linspace(0, preds.shape[2] - 1, count).long().tolist()
        window, horizon = batch.x.shape[1], preds.shape[1]
        figure = Figure(figsize=(7.2, 1.7 * count + 0.6), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        past, ahead = range(1 - window, 1), range(1, horizon + 1)
        style = {"marker": "o", "markersize": 4} if horizon < 4 else {}
        row = len(preds) // 2
        nodes_shown = part_of(count, preds.shape[2], "nodes")
        figure.suptitle(f"one of {num_windows:,} test windows, {nodes_shown}")
        for axes, node in zip(panels, nodes, strict=True):
            axes.plot(past, batch.x[row, :, node, 0], color="gray", marker=".", label="observed")
            axes.plot(ahead, batch.y[row, :, node], color="black", label="true", **style)
            axes.plot(ahead, preds[row, :, node], color="tab:red", label="forecast", **style)
            axes.axvline(0.5, color="lightgray", linewidth=1)
            axes.set_ylabel(f"node {names[node]}")
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        panels[-1].set_xlabel("steps from the forecast's origin")
        return figure


def _known(datamodule: Any) -> dict[str, float]:
    """The optimum of the squared error, else its best rival, by name; empty where none is known."""
    optimum = getattr(datamodule, "optimum", {}).get("test/mse")
    if optimum is not None:
        return {"mean, optimum": optimum.value}
    rivals = getattr(datamodule, "rivals", {}).get("test/mse", {})
    best = min(rivals, key=rivals.__getitem__, default=None)
    return {} if best is None else {f"mean, {best}": rivals[best]}


def _error_per_node(
    y: torch.Tensor, preds: torch.Tensor, shown: str, known: dict[str, float]
) -> "Figure":
    from matplotlib.figure import Figure

    errors = (preds - y).square().nanmean((0, 1)).sort().values
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(1, len(errors) + 1), errors)
    axes.axhline(errors.mean().item(), color="tab:red", label="mean")
    for name, value in known.items():
        axes.axhline(value, color="black", linestyle="--", label=name)
    axes.set(xlabel="node, by its error", ylabel="mean squared error")
    axes.set_title(f"{len(errors):,} nodes, {shown}")
    axes.legend(loc="lower right")
    return figure


def _error_per_step(
    y: torch.Tensor, preds: torch.Tensor, shown: str, floors: Any
) -> "dict[str, Figure]":
    if preds.shape[1] == 1:
        return {}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = range(1, preds.shape[1] + 1)
    axes.plot(steps, (preds - y).square().nanmean((0, 2)), color="tab:red", label="forecast")
    if floors is not None:
        axes.plot(steps, floors.bayes, color="black", linestyle="--", label="optimum")
        axes.plot(steps, floors.node_only, color="gray", linestyle=":", label="without the graph")
    axes.set(xlabel="step ahead", ylabel="mean squared error", title=shown)
    axes.grid(alpha=0.3)
    axes.legend()
    return {"error_per_step": figure}
