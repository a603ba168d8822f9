"""Figures of predictive densities: band, calibration, selective prediction, extrapolation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback
from callbacks.figures.style import part_of
from callbacks.figures.table_scores import calibration_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _predictive(pl_module: L.LightningModule, x: Tensor) -> Any:
    model: Any = pl_module
    return model.predictive(x.to(device=model.device, dtype=model.dtype))


def _test_split(trainer: L.Trainer) -> Any:
    """Test rows as the network takes them."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    test = datamodule.split("test")
    return test if getattr(test, "categories", None) is None else datamodule.one_hot(test)


def _answers(
    pl_module: L.LightningModule, test: Any, num_rows: int
) -> Iterator[tuple[Any, Tensor]]:
    """Predictive density and targets of the first rows, block by block."""
    blocks = (torch.split(field[:num_rows], 2000) for field in (test.x, test.y))
    for x, y in zip(*blocks, strict=True):
        yield _predictive(pl_module, x), y.to(pl_module.device)


class PredictiveBand(FigureCallback):
    """Mean of the predictive density with twice its epistemic and its total standard deviation.

    Drawn for one input and one target, beyond the training data on both sides, with the training
    points and the true function where the datamodule knows it.

    Args:
        margin: How far to draw beyond the training inputs, as a share of their range.
        num_points: Points of the curve.
    """

    def __init__(self, margin: float = 0.35, num_points: int = 400) -> None:
        self.margin, self.num_points = margin, num_points

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The band; nothing for several inputs or targets."""
        from matplotlib.figure import Figure

        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        train = datamodule.split("train")
        if datamodule.in_features != 1 or train.y.shape[1:] != (1,):
            return {}
        low, high = train.x.min().item(), train.x.max().item()
        margin = self.margin * (high - low)
        x = torch.linspace(low - margin, high + margin, self.num_points).unsqueeze(1)
        mixture = _predictive(pl_module, x)
        mean = mixture.mean[:, 0].cpu()
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        bands = (("total", mixture.variance, 0.25), ("epistemic", mixture.epistemic_variance, 0.4))
        for label, variance, alpha in bands:
            std = variance[:, 0].sqrt().cpu()
            ends = (mean - 2 * std, mean + 2 * std)
            axes.fill_between(x[:, 0], *ends, color="tab:blue", alpha=alpha, linewidth=0)
            axes.fill_between([], [], color="tab:blue", alpha=alpha, label=f"±2 std, {label}")
        axes.plot(x[:, 0], mean, color="tab:blue", label="mean")
        axes.scatter(
            train.x[:, 0],
            train.y[:, 0],
            s=9,
            color="black",
            label=f"{len(train.x):,} training rows",
        )
        clean = getattr(datamodule, "clean", None)
        if clean is not None:
            axes.plot(x[:, 0], clean(x)[:, 0], color="tab:orange", linestyle="--", label="truth")
        for end in (low, high):
            axes.axvline(end, color="lightgray", linewidth=1, zorder=0)
        axes.set(xlabel="x", ylabel="y", xlim=(x[0].item(), x[-1].item()))
        axes.legend(ncols=2)
        return {"predictive_band": figure}


class CalibrationPlot(FigureCallback):
    """Observed against nominal probability.

    For a regression: the share of test targets below each predicted quantile. For classes: the
    accuracy of the rows whose highest probability falls in each of fifteen bins.

    Args:
        num_rows: Test rows, at most.
    """

    def __init__(self, num_rows: int = 20_000) -> None:
        self.num_rows = num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The curve."""
        from matplotlib.figure import Figure

        test = _test_split(trainer)
        is_number = test.y.is_floating_point()
        parts = [
            (mixture.cdf(target) if is_number else mixture.probs).cpu()
            for mixture, target in _answers(pl_module, test, self.num_rows)
        ]
        values = torch.cat(parts)
        if not is_number:
            y = test.y[: self.num_rows].numpy()
            figure = calibration_figure(values.double().numpy(), y, num_all=len(test.y))
            return {"calibration": figure}
        nominal = torch.arange(1, 20) / 20
        observed = (values.flatten().unsqueeze(1) <= nominal).double().mean(0)
        figure = Figure(figsize=(4.8, 4.8), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="calibrated")
        axes.plot(nominal, observed, color="tab:red", marker="o", markersize=4, label="model")
        error = (observed - nominal).abs().mean()
        shown = part_of(len(values), len(test.y), "test rows")
        axes.set(xlabel="predicted quantile", ylabel="share of targets below it")
        axes.set_title(f"calibration error {error:.4f}, {shown}")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.grid(alpha=0.3)
        axes.legend()
        return {"calibration": figure}


class SelectivePlot(FigureCallback):
    """Error of the rows that are answered when the most uncertain ones are refused.

    For a regression: squared error in order of the predictive variance. For classes: share of wrong
    answers in order of the highest probability. Beside it the best order there is, which refuses
    the largest errors first; ``test/aurc`` is the area under the curve.

    Args:
        num_rows: Test rows, at most.
    """

    def __init__(self, num_rows: int = 20_000) -> None:
        self.num_rows = num_rows

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The curve."""
        from matplotlib.figure import Figure

        columns: list[tuple[Tensor, Tensor]] = []
        test = _test_split(trainer)
        is_number = test.y.is_floating_point()
        for mixture, target in _answers(pl_module, test, self.num_rows):
            if is_number:
                error = (mixture.mean - target).square().sum(1)
                columns.append((mixture.variance.sum(1).cpu(), error.cpu()))
            else:
                highest, label = mixture.probs.max(1)
                columns.append((1 - highest.cpu(), (label != target).float().cpu()))
        uncertainty, error = (torch.cat(column) for column in zip(*columns, strict=True))
        share = torch.arange(1, len(error) + 1) / len(error)
        figure = Figure(figsize=(5.4, 4.0), layout="constrained")
        axes = figure.subplots()
        areas = []
        for order, label, color in (
            (uncertainty, "by the model's uncertainty", "tab:red"),
            (error, "best order", "tab:gray"),
        ):
            risk = _risk(order, error.double())
            areas.append(risk.mean().item())
            axes.plot(share, risk, color=color, label=label)
        axes.axhline(error.mean().item(), color="black", linestyle="--", label="no order")
        axes.set(xlabel="share of rows answered", xlim=(0, 1))
        axes.set(ylabel="mean squared error" if is_number else "share of wrong answers")
        axes.set_ylim(bottom=0)
        shown = part_of(len(error), len(test.y), "test rows")
        axes.set_title(f"area {areas[0]:.4g}, best order {areas[1]:.4g}, {shown}")
        axes.grid(alpha=0.3)
        axes.legend()
        return {"selective_prediction": figure}


def _risk(order: Tensor, error: Tensor) -> Tensor:
    """Mean error of the first n rows, ``(N,)``; equal rows share theirs."""
    _, group, counts = torch.unique(order, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), dtype=error.dtype).index_add(0, group, error)
    ordered = (sums / counts).repeat_interleave(counts)
    risk: Tensor = ordered.cumsum(0) / torch.arange(1, len(error) + 1)
    return risk


class ExtrapolationSpread(L.Callback):
    """Logs how much less a model claims to know where it has seen no data.

    ``test/extrapolation_ratio`` is the epistemic standard deviation at ``-outside`` or ``outside``,
    whichever is smaller, over its mean on ``[-inside, inside]``, for a single input.

    Args:
        inside: End of the interval that holds the training data.
        outside: Distance from 0 of the two points without data.
    """

    def __init__(self, inside: float = 3.0, outside: float = 5.0) -> None:
        self.inside, self.outside = inside, outside

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluates both; does nothing for several inputs."""
        if getattr(trainer.datamodule, "in_features", 1) != 1:  # type: ignore[attr-defined]
            return
        grid = torch.linspace(-self.inside, self.inside, 200)
        x = torch.cat([grid, torch.tensor([-self.outside, self.outside])]).unsqueeze(1)
        with torch.no_grad():
            mixture = _predictive(pl_module, x)
        std = mixture.epistemic_variance.sqrt()[:, 0]
        ratio = std[-2:].min() / std[:-2].mean()
        pl_module.log("test/extrapolation_ratio", ratio.float(), sync_dist=True)
