"""What every forecaster of series shares: units, heads, a linear start, and intervals that hold.

A forecaster says what its network adds (:meth:`LitForecaster.change`); how steps are scored, what
the start contributes and how wide the intervals are is decided here, the last two on the
validation windows alone.

Shape letters: B batch, T window, D channels, H horizon, P parameters of a head, L levels.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.layers.conformal import ConformalWidths
from lit_models.layers.forecast_heads import (
    LEVELS,
    QUANTILES,
    MixtureHead,
    PointHead,
    QuantileHead,
    interval_ends,
)
from lit_models.layers.series_units import LinearStart, Power, ScaledWindows, SeriesUnits
from lit_models.layers.standardize import Standardize, widest_float
from lit_models.metrics.forecast import (
    ForecastMAE,
    ForecastMASE,
    ForecastMSE,
    ForecastPinball,
    ForecastScore,
    ForecastSMAPE,
    Windows,
)

Head = Literal["point", "quantile", "mixture"]
_BLENDS = tuple(k / 20 for k in range(21))


def _metrics(head: Head, num_series: int) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"mse": ForecastMSE(), "mae": ForecastMAE()}
    if num_series:
        metrics |= {"smape": ForecastSMAPE(), "mase": ForecastMASE()}
    if head != "point":
        metrics["pinball"] = ForecastPinball()
    if head == "mixture":
        metrics |= {"crps": ForecastScore("crps"), "nll": ForecastScore("nll")}
    return metrics


class LitForecaster(LitModule):
    """Base of the forecasters.

    Args:
        in_features: Number D of channels; channel 0 is the series to forecast.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window.
        head: What is said of each step: a value, quantiles, or a mixture of normal densities.
        num_components: Components of the mixture.
        num_series: Number of series of a user's file; 0 for generated windows.
        num_known: Number of channels known ahead.
        target_power: Exponent, shift and least value of a transform of the target.
        ridge_start: Whether to add to the ridge regression of the training windows.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.
    """

    blend: Tensor

    def __init__(
        self,
        in_features: int,
        horizon: int,
        window: int,
        head: Head,
        num_components: int,
        num_series: int,
        num_known: int,
        target_power: Power | None,
        ridge_start: bool,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(_metrics(head, num_series), optimizer, lr_scheduler)
        for name, value in (("horizon", horizon), ("window", window), ("in_features", in_features)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if head == "mixture" and target_power is not None:
            raise ValueError(
                "a mixture of normal densities has no closed form in the units of a transformed "
                "target; use head quantile or --data.transform none"
            )
        self.horizon, self.num_series, self.num_known = horizon, num_series, num_known
        heads = {"point": PointHead, "quantile": QuantileHead}
        self.head = MixtureHead(num_components) if head == "mixture" else heads[head]()
        self.head_kind = head
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(1)
        self.units = SeriesUnits(target_power)
        num_inputs = window * in_features + horizon * num_known
        self.start = LinearStart(num_inputs, horizon) if ridge_start else None
        if ridge_start:
            self.register_buffer("blend", torch.ones(()))
        self.widths = ConformalWidths(LEVELS, horizon) if num_series else None
        scored = ("lower", "upper", "target", "mask")
        self.val_windows = Windows(*scored)
        self.test_windows = Windows(*scored, "series", "time", "center", "scale", "error")
        self._held: list[tuple[Tensor, Tensor, SeriesBatch]] = []
        self.scores_by_series: dict[str, dict[str, float]] = {}
        self.coverage_by_step: Mapping[float, Tensor] = {}

    def change(self, windows: ScaledWindows, series: Tensor | None) -> Tensor:
        """What the network forecasts: parameters ``(B, H or more, P)``, less those of a start."""
        raise NotImplementedError(f"{type(self).__name__} must define change()")

    @property
    def _compute_dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _parts(self, batch: SeriesBatch) -> tuple[Tensor | None, Tensor]:
        """Parameters of the start, and what the network adds to them."""
        windows = self.units.windows(batch, self.x_scaler, self._compute_dtype)
        change = self.change(windows, batch.series)
        if self.start is None:
            return None, change
        return self.head.start(self.start(windows), self.start.std.to(change)), change

    def params(self, batch: SeriesBatch) -> Tensor:
        """Parameters of the head for each step, ``(B, H or more, P)``, in the model's units."""
        start, change = self._parts(batch)
        if start is None:
            return change
        return start + (change if self.training else self.blend * change)

    def forward(
        self,
        x: Tensor,
        known: Tensor | None = None,
        series: Tensor | None = None,
        center: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Forecast in the units of the data, ``(B, H)``; the arguments are SeriesBatch's fields."""
        batch = SeriesBatch(x, x[:, :0, 0], None, known, series, None, center, scale)
        return self._point(self.params(batch)[:, : self.horizon], batch)

    def example_inputs(self, batch: Any) -> dict[str, Any]:
        """The fields that this forecaster reads."""
        inputs = super().example_inputs(batch)
        return inputs if self.reads_series else inputs | {"series": None}

    @property
    def reads_series(self) -> bool:
        """Whether the network tells the series apart by their number."""
        return False

    def _point(self, params: Tensor, batch: SeriesBatch) -> Tensor:
        return self.units.restore(self.head.point(params), batch, self.y_scaler)

    def take_scale(self, datamodule: Any) -> None:
        """Takes the scale and the linear start of the training data."""
        super().take_scale(datamodule)
        if self.start is None:
            return
        start = getattr(datamodule, "linear_start", None)
        if start is None:
            raise InputError(
                f"{type(datamodule).__name__} has no complete training window of a user's series "
                "to fit a ridge regression to; use --model.ridge_start false"
            )
        self.start.take(start)

    def step(self, batch: SeriesBatch) -> StepOutput:
        """Loss of a batch, auxiliary steps included where the batch has them."""
        return self._output(self.params(batch), batch)

    def _output(self, params: Tensor, batch: SeriesBatch) -> StepOutput:
        target = self.units.target(batch, self.y_scaler, self._compute_dtype)
        num_steps = min(params.shape[1], target.shape[1])
        losses = self.head.losses(params[:, :num_steps], target[:, :num_steps])
        ahead, target = params[:, : self.horizon], batch.y[:, : self.horizon]
        preds = self._point(ahead, batch)
        inputs: dict[str, Any] = {} if self.training else self._metric_inputs(ahead, batch)
        if batch.mask is None:
            return StepOutput(losses.mean(), len(batch.x), preds, target, metric_inputs=inputs)
        count = batch.mask.sum()
        loss = torch.where(batch.mask, losses, 0).sum() / count.clamp(min=1)
        return StepOutput(loss, count, preds, target, metric_inputs=inputs)

    def _metric_inputs(self, params: Tensor, batch: SeriesBatch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"mask": batch.mask}
        if self.num_series:
            inputs["naive_error"] = batch.naive_error
        if self.head_kind == "point":
            return inputs
        quantiles = self.head.quantiles(params, QUANTILES)
        inputs["quantiles"] = self.units.restore(quantiles, batch, self.y_scaler)
        if isinstance(self.head, MixtureHead):
            scale = self._scale(batch)
            mixture = self.head.mixture(params.to(scale))
            target = self.units.target(batch, self.y_scaler, scale.dtype)
            inputs["crps"] = mixture.crps(target.to(scale)) * scale
            inputs["nll"] = self.head.losses(params.to(scale), target.to(scale)) + scale.log()
        return inputs

    def _scale(self, batch: SeriesBatch) -> Tensor:
        """Standard deviation of each row's target, ``(B or 1, 1)`` float64."""
        found = self.y_scaler.std if batch.scale is None else batch.scale[:, :1]
        return found.to(widest_float(found.device)).view(-1, 1)

    # Intervals -----------------------------------------------------------------------------------

    def _bounds(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the intervals that the head states, ``(B, L, H)``, in the model's units."""
        ends = self.head.quantiles(params[:, : self.horizon], interval_ends())
        lower, upper = ends.movedim(-1, 1).chunk(2, dim=1)
        return lower, upper

    def _scored(self, params: Tensor, batch: SeriesBatch) -> dict[str, Tensor]:
        """Intervals and targets of a batch in the model's units."""
        lower, upper = self._bounds(params)
        target = self.units.target(batch, self.y_scaler, self._compute_dtype)[:, : self.horizon]
        mask = torch.ones_like(target, dtype=torch.bool) if batch.mask is None else batch.mask
        return {"lower": lower, "upper": upper, "target": target, "mask": mask}

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> dict[str, Tensor]:
        """Holds a batch until the share of the start is known, during a fit of a user's file."""
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        if not fitting or (self.start is None and self.widths is None):
            return super().validation_step(batch, batch_idx)
        start, change = self._parts(batch)
        start = torch.zeros_like(change) if start is None else start
        held = batch._replace(x=batch.x[:, -1:], known=None)
        self._held.append((start, change, held))
        share = self.blend if self.start is not None else 1.0
        preds = self._point((start + share * change)[:, : self.horizon], batch)
        return {"preds": preds, "target": batch.y}

    def on_validation_epoch_end(self) -> None:
        """Chooses the share of the start, scores the windows by it, and fits the intervals."""
        held, self._held = self._held, []
        if held:
            if self.start is not None:
                self.blend.fill_(self._best_blend(held))
            share = self.blend if self.start is not None else 1.0
            for start, change, batch in held:
                params = start + share * change
                output = self._output(params, batch)
                self._accumulate("val", output)
                self.update_metrics(self.val_metrics, output)
                self.val_windows.update(**self._scored(params, batch))
            if self.widths is not None:
                found = self.val_windows.compute()
                self.widths.fit(_scores(found), found["mask"])
            self.val_windows.reset()
        super().on_validation_epoch_end()

    def _best_blend(self, held: list[tuple[Tensor, Tensor, SeriesBatch]]) -> float:
        """Share of what was learned with the least loss over the validation windows."""
        totals = torch.zeros(len(_BLENDS), dtype=widest_float(self.device), device=self.device)
        for start, change, batch in held:
            target = self.units.target(batch, self.y_scaler, self._compute_dtype)
            for index, share in enumerate(_BLENDS):
                losses = self.head.losses(start + share * change, target)
                if batch.mask is not None:
                    losses = losses[batch.mask]
                totals[index] += losses.to(totals).sum()
        return _BLENDS[int(self._sum_over_ranks(totals).argmin())]

    def test_step(self, batch: SeriesBatch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the test metrics; keeps the intervals of a user's series."""
        params = self.params(batch)
        output = self._output(params, batch)
        self._accumulate("test", output)
        self.update_metrics(self.test_metrics, output)
        if self.widths is not None and batch.time is not None and batch.series is not None:
            ones = torch.ones(len(batch.x), 1, device=params.device)
            own = batch.center is not None and batch.scale is not None
            self.test_windows.update(
                **self._scored(params, batch),
                series=batch.series,
                time=batch.time,
                center=batch.center[:, :1] if own else 0 * ones,  # type: ignore[index]
                scale=batch.scale[:, :1] if own else ones,  # type: ignore[index]
                error=(output.preds - output.target).abs(),
            )
        return {"preds": output.preds, "target": output.target}

    def on_test_epoch_end(self) -> None:
        """Logs means, metrics and the coverage of intervals that adapt over the test."""
        if self.widths is not None and self.test_windows.lower:
            self.log_dict(self._coverage(self.test_windows.compute()), sync_dist=True)
            self.test_windows.reset()
        super().on_test_epoch_end()

    def _coverage(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.widths is not None
        arrays = {name: part.detach().cpu() for name, part in found.items()}
        scores, mask = _scores(arrays), arrays["mask"]
        adapted = self.widths.adaptive(
            scores.double().numpy(),
            arrays["time"].numpy(),
            arrays["series"].numpy(),
            mask.numpy(),
        )
        added = torch.from_numpy(adapted)
        inside = (scores <= added).double()
        weight = mask.double().unsqueeze(1)
        lower, upper = (
            self._to_units(arrays[name].double() + side * added, arrays)
            for name, side in (("lower", -1), ("upper", 1))
        )
        logged, by_step = {}, {}
        for index, level in enumerate(LEVELS):
            name = f"{round(100 * level)}"
            covered = (inside * weight)[:, index]
            by_step[level] = covered.sum(0) / weight[:, 0].sum(0)
            width = (upper - lower)[:, index][mask].mean()
            logged[f"test/coverage_{name}"] = (covered.sum() / weight.sum()).float()
            logged[f"test/width_{name}"] = width.float()
        self.coverage_by_step = by_step
        self._score_by_series(arrays)
        return logged

    def _to_units(self, ends: Tensor, arrays: dict[str, Tensor]) -> Tensor:
        """Ends of intervals ``(N, L, H)`` in the units of the file."""
        own = bool((arrays["scale"] != 1).any())
        center, scale = (arrays[name].double() if own else None for name in ("center", "scale"))
        batch = SeriesBatch(ends, ends, center=center, scale=scale)
        return self.units.restore(ends.to(self.device), batch, self.y_scaler).cpu()

    def _score_by_series(self, arrays: dict[str, Tensor]) -> None:
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        names = getattr(datamodule, "series_names", [])
        self.scores_by_series = {}
        if len(names) < 2:
            return
        for number in sorted(set(arrays["series"].tolist())):
            rows = arrays["series"] == number
            error = arrays["error"][rows].double()[arrays["mask"][rows]]
            name = names[number] if 0 <= number < len(names) else "new series"
            scores = {"mse": error.square().mean().item(), "mae": error.mean().item()}
            self.scores_by_series[name] = scores

    def predict_step(self, batch: SeriesBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Forecast, intervals where the model has them, and target; each ``(B, H)``."""
        params = self.params(batch)[:, : self.horizon]
        columns = {"prediction": self._point(params, batch)}
        if self.widths is not None or self.head_kind != "point":
            lower, upper = self._bounds(params)
            added = 0 if self.widths is None else self.widths.static().to(lower)
            lower, upper = (
                self.units.restore(ends, batch, self.y_scaler)
                for ends in (lower - added, upper + added)
            )
            for index, level in enumerate(LEVELS):
                columns[f"lower_{round(100 * level)}"] = lower[:, index]
                columns[f"upper_{round(100 * level)}"] = upper[:, index]
        return columns | {"target": batch.y[:, : self.horizon]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also loads a checkpoint from before forecasts had intervals."""
        super().on_load_checkpoint(checkpoint)
        own = self.state_dict()
        for name in ("widths.scores", "widths.count"):
            if name in own:
                checkpoint["state_dict"].setdefault(name, own[name])


def _scores(found: Mapping[str, Tensor]) -> Tensor:
    """How far each target lies outside of its intervals, ``(N, L, H)``; negative inside."""
    target = found["target"].unsqueeze(1)
    return torch.maximum(found["lower"] - target, target - found["upper"])
