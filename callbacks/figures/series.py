"""Figures of forecasts: windows with their continuation, error and coverage per step, attention."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback
from callbacks.figures.style import part_of
from datamodules.batches import SeriesBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHUNK = 2000
_COLORS = {"80": 0.35, "95": 0.18}


def series_windows(datamodule: Any, split: str, rows: Tensor, device: torch.device) -> SeriesBatch:
    """Windows of a split on a device, gathered where the split holds no more than their places."""
    if hasattr(datamodule, "windows"):
        batch: SeriesBatch = datamodule.windows(split, rows)
    else:
        data = datamodule.split(split)
        taken: Any = (None if field is None else field[rows] for field in data)
        batch = SeriesBatch(*taken)
    moved: Any = (None if field is None else field.to(device) for field in batch)
    return SeriesBatch(*moved)


class ForecastFigure(FigureCallback):
    """Windows with forecast, intervals and truth; error and coverage per step; attention.

    Of a user's series the last test window of some series is drawn, or windows spread over the test
    of a single one, over the dates of the file.

    Args:
        num_windows: Windows to draw.
        num_rows: Test rows for the error per step, at most.
    """

    def __init__(self, num_windows: int = 4, num_rows: int = 40_000) -> None:
        self.num_windows, self.num_rows = num_windows, num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures that the model and its data allow."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        count = len(datamodule.split("test")[0])
        shown = series_windows(datamodule, "test", self._shown(datamodule), pl_module.device)
        title = part_of(len(shown.x), count, "test windows")
        figures = {"forecast": self._windows(pl_module, datamodule, shown, title)}
        horizon = getattr(datamodule, "horizon", shown.y.shape[1])
        if horizon > 1:
            rows = torch.linspace(0, count - 1, min(self.num_rows, count)).long()
            error = _error_per_step(_batches(datamodule, rows, pl_module), pl_module)
            title = part_of(len(rows), count, "test windows")
            figures["error_per_step"] = _error_figure(error, datamodule, title)
            coverage = getattr(pl_module, "coverage_by_step", {})
            if coverage:
                figures["coverage_per_step"] = _coverage_figure(coverage, f"{count:,} test windows")
        weights = _attention(pl_module, datamodule, count)
        if weights is not None:
            title = part_of(len(weights), count, "test windows")
            figures["attention"] = _attention_figure(weights, title)
        return figures

    def _shown(self, datamodule: Any) -> Tensor:
        """Rows of the windows to draw, each of another window."""
        data = datamodule.split("test")
        series = getattr(data, "series", None)
        if series is not None and bool((series != series[0]).any()):
            last = torch.cat([series[1:] != series[:-1], torch.ones(1, dtype=torch.bool)])
            rows: Tensor = last.nonzero()[: self.num_windows, 0]
            return rows
        count = len(data[0])
        if hasattr(datamodule, "floors"):  # the second half repeats the windows with other noise
            count = max(count // 2, 1)
        return torch.linspace(0, count - 1, min(self.num_windows, count)).long()

    def _windows(
        self, pl_module: L.LightningModule, datamodule: Any, batch: SeriesBatch, title: str
    ) -> "Figure":
        from matplotlib.figure import Figure

        columns, observed, window_of = _by_panel(pl_module.predict_step(batch, 0), batch)
        columns = {name: part[: self.num_windows] for name, part in columns.items()}
        count, horizon = columns["prediction"].shape
        window = batch.x.shape[1]
        dates = datamodule.time_of(batch) if hasattr(datamodule, "time_of") else None
        figure = Figure(figsize=(7.2, 1.8 * count + 0.9), layout="constrained")
        panels = figure.subplots(count, 1, sharex=dates is None, squeeze=False)[:, 0]
        shown = min(window, max(4 * horizon, 48))
        for row, axes in enumerate(panels):
            place = window_of[row]
            axis = np.arange(1 - window, horizon + 1) if dates is None else dates[place]
            past, ahead = axis[window - shown : window], axis[window:]
            _draw_window(axes, past, ahead, observed[row, -shown:], columns, row)
            axes.set_title(_name_of_panel(datamodule, batch, row, place))
            if dates is None:
                _whole_ticks(axes)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        if dates is None:
            panels[-1].set_xlabel("steps from the forecast's origin")
        figure.suptitle(title)
        figure.supylabel(", ".join(getattr(datamodule, "target_names", ["value"])))
        return figure


def _by_panel(
    columns: dict[str, Tensor], batch: SeriesBatch
) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """Forecasts ``(P, H)``, windows ``(P, T)`` and the batch's row of each panel: one a target."""
    columns = {name: part.cpu() for name, part in columns.items()}
    count = columns["prediction"].shape[2] if columns["prediction"].ndim == 3 else 1
    if count > 1:
        columns = {name: part.movedim(2, 1).flatten(0, 1) for name, part in columns.items()}
    observed = batch.x[..., :count].movedim(2, 1).flatten(0, 1).cpu()
    return columns, observed, [row for row in range(len(batch.x)) for _ in range(count)]


def _name_of_panel(datamodule: Any, batch: SeriesBatch, row: int, place: int) -> str:
    """Series and target of a panel, where there are several."""
    names = getattr(datamodule, "series_names", [])
    series = (
        [names[int(batch.series[place])]] if len(names) > 1 and batch.series is not None else []
    )
    count = getattr(datamodule, "num_targets", 1)
    target = [datamodule.target_names[row % count]] if count > 1 else []
    return " ".join(series + target)


def _draw_window(
    axes: "Axes", past: Any, ahead: Any, observed: Tensor, columns: dict[str, Tensor], row: int
) -> None:
    style: Any = {"marker": "o", "markersize": 4} if len(ahead) < 4 else {}
    axes.plot(past, observed, color="gray", label="observed")
    for level in ("95", "80"):
        if f"lower_{level}" in columns:
            lower, upper = (columns[f"{side}_{level}"][row] for side in ("lower", "upper"))
            label, alpha = f"{level} % interval", _COLORS[level]
            if len(ahead) < 4:
                middle = columns["prediction"][row]
                ends = torch.stack([middle - lower, upper - middle]).clamp(min=0).numpy()
                axes.errorbar(
                    ahead, middle, ends, fmt="none", color="tab:red", alpha=alpha, label=label
                )
            else:
                axes.fill_between(ahead, lower, upper, color="tab:red", alpha=alpha, label=label)
    axes.plot(ahead, columns["target"][row], color="black", label="true", **style)
    axes.plot(ahead, columns["prediction"][row], color="tab:red", label="forecast", **style)
    axes.grid(alpha=0.3)


def _batches(datamodule: Any, rows: Tensor, pl_module: L.LightningModule) -> Iterator[SeriesBatch]:
    for part in torch.split(rows, _CHUNK):
        yield series_windows(datamodule, "test", part, pl_module.device)


def _error_per_step(batches: Iterator[SeriesBatch], pl_module: L.LightningModule) -> Tensor:
    """Mean squared error of each step over the measured targets, ``(H,)``."""
    total = count = torch.zeros(1, dtype=torch.float64)
    for batch in batches:
        preds = pl_module.predict_step(batch, 0)["prediction"]
        squares = (preds.double() - batch.y[:, : preds.shape[1]].double()).square()
        mask = torch.ones_like(squares) if batch.mask is None else batch.mask.double()
        others = [dim for dim in range(squares.ndim) if dim != 1]
        total = total + (squares * mask).sum(others).cpu()
        count = count + mask.sum(others).cpu()
    error: Tensor = total / count
    return error


def _error_figure(error: Tensor, datamodule: Any, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(error) + 1)
    axes.plot(steps, error, color="tab:red", label="forecast")
    floors = getattr(datamodule, "floors", None)
    if floors is not None:
        axes.plot(steps, floors.bayes, color="black", linestyle="--", label="optimum")
        axes.plot(steps, floors.linear, color="tab:blue", linestyle=":", label="best linear")
    rivals = getattr(datamodule, "rival_errors_per_step", {})
    for name, rival in rivals.items():
        if rival.mean() < 4 * error.mean():  # a hopeless rival would flatten the others
            axes.plot(steps, rival, linestyle=":", label=name)
    axes.set(xlabel="step ahead", ylabel="mean squared error")
    axes.set_title(title)
    _whole_ticks(axes)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _coverage_figure(coverage: Any, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for level, share in coverage.items():
        (line,) = axes.plot(range(1, len(share) + 1), share, label=f"{100 * level:.0f} % interval")
        axes.axhline(level, color=line.get_color(), linestyle=":")
    axes.set(xlabel="step ahead", ylabel="share of the targets inside")
    axes.set_title(title)
    _whole_ticks(axes)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _whole_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _attention(pl_module: L.LightningModule, datamodule: Any, count: int) -> Tensor | None:
    if not hasattr(pl_module, "attention_weights"):
        return None
    rows = torch.arange(min(count, 1000))
    batch = series_windows(datamodule, "test", rows, pl_module.device)
    attend: Any = pl_module.attention_weights
    weights: Tensor | None = attend(batch)
    return None if weights is None else weights.cpu()


def _attention_figure(weights: Tensor, title: str) -> "Figure":
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
    axes.set_title(title)
    _whole_ticks(axes)
    axes.legend()
    return figure
