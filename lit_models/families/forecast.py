"""What every forecaster of series shares: units, heads, and a linear start.

A forecaster says what its network adds (:meth:`LitForecaster.change`); how steps are scored and
what the start contributes is decided here, the latter on the validation windows alone.

Of M targets that are forecast together a window becomes M rows once the network has spoken: heads,
losses, scores and intervals know rows of one target.

Shape letters: B batch, T window, D channels, H horizon, M targets of a window, P parameters of a
head, R = B M rows.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.layers.forecast_heads import QUANTILES, MixtureHead, PointHead, QuantileHead
from lit_models.layers.series_units import (
    LinearStart,
    Power,
    ScaledWindows,
    SeriesUnits,
    from_rows,
    target_rows,
)
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
_NUM_BLOCKS = 20


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
        in_features: Number D of channels; the first M are the series to forecast.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window.
        head: What is said of each step: a value, quantiles, or a mixture of normal densities.
        num_components: Components of the mixture.
        num_series: Number of series of a user's file; 0 for generated windows.
        num_known: Number of channels known ahead.
        num_targets: Number M of targets that a window forecasts.
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
        num_targets: int,
        target_power: Power | None,
        ridge_start: bool,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(_metrics(head, num_series), optimizer, lr_scheduler)
        sizes = {"horizon": horizon, "window": window, "in_features": in_features}
        for name, value in (sizes | {"num_targets": num_targets}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if head == "mixture" and target_power is not None:
            raise ValueError(
                "a mixture of normal densities has no closed form in the units of a transformed "
                "target; use head quantile or --data.transform none"
            )
        self.horizon, self.num_series, self.num_known = horizon, num_series, num_known
        self.num_targets = num_targets
        heads = {"point": PointHead, "quantile": QuantileHead}
        self.head = MixtureHead(num_components) if head == "mixture" else heads[head]()
        self.head_kind = head
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(num_targets)
        self.units = SeriesUnits(target_power, num_targets)
        num_inputs = window * in_features + horizon * num_known
        self.start = LinearStart(num_inputs, horizon, num_targets) if ridge_start else None
        if ridge_start:
            self.register_buffer("blend", torch.ones(()))
        self.blend_windows = Windows("time", "losses", "count")
        self._held: list[tuple[Tensor, Tensor, SeriesBatch]] = []

    def change(self, windows: ScaledWindows, series: Tensor | None) -> Tensor:
        """What the network forecasts: parameters ``(R, H or more, P)``, less those of a start."""
        raise NotImplementedError(f"{type(self).__name__} must define change()")

    @property
    def _compute_dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _rows(self, batch: SeriesBatch) -> SeriesBatch:
        """A batch of one target a row."""
        return target_rows(batch, self.num_targets, self.x_scaler.mean, self.x_scaler.std)

    def _parts(self, batch: SeriesBatch) -> tuple[Tensor | None, Tensor]:
        """Parameters of the start, and what the network adds to them."""
        windows = self.units.windows(batch, self.x_scaler, self._compute_dtype)
        change = self.change(windows, batch.series)
        return self._start(windows, change), change

    def _start(self, windows: ScaledWindows, like: Tensor) -> Tensor | None:
        if self.start is None:
            return None
        return self.head.start(self.start(windows), self.start.deviations(like.shape[0]).to(like))

    def params(self, batch: SeriesBatch) -> Tensor:
        """Parameters of the head for each step, ``(R, H or more, P)``, in the model's units."""
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
        """Forecast in the units of the data, ``(B, H)``; the arguments are SeriesBatch's fields.

        Of several targets together ``(B, H, M)``.
        """
        batch = SeriesBatch(x, x[:, :0, 0], None, known, series, None, center, scale)
        point = self._point(self.params(batch)[:, : self.horizon], self._rows(batch))
        return from_rows(point, self.num_targets)

    def example_inputs(self, batch: Any) -> dict[str, Any]:
        """The fields that this forecaster reads."""
        inputs = super().example_inputs(batch)
        return inputs if self.reads_series else inputs | {"series": None}

    @property
    def reads_series(self) -> bool:
        """Whether the network tells the series apart by their number."""
        return False

    def _point(self, params: Tensor, rows: SeriesBatch) -> Tensor:
        return self.units.restore(self.head.point(params), rows, self.y_scaler)

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
        return self._output(self.params(batch), self._rows(batch))

    def _output(self, params: Tensor, rows: SeriesBatch) -> StepOutput:
        target = self.units.target(rows, self.y_scaler, self._compute_dtype)
        num_steps = min(params.shape[1], target.shape[1])
        losses = self.head.losses(params[:, :num_steps], target[:, :num_steps])
        ahead, target = params[:, : self.horizon], rows.y[:, : self.horizon]
        preds = self._point(ahead, rows)
        inputs: dict[str, Any] = {} if self.training else self._metric_inputs(ahead, rows)
        if rows.mask is None:
            return StepOutput(losses.mean(), len(rows.x), preds, target, metric_inputs=inputs)
        count = rows.mask.sum()
        loss = torch.where(rows.mask, losses, 0).sum() / count.clamp(min=1)
        return StepOutput(loss, count, preds, target, metric_inputs=inputs)

    def _metric_inputs(self, params: Tensor, rows: SeriesBatch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"mask": rows.mask}
        if self.num_series:
            inputs["naive_error"] = rows.naive_error
        if self.head_kind == "point":
            return inputs
        quantiles = self.head.quantiles(params, QUANTILES)
        inputs["quantiles"] = self.units.restore(quantiles, rows, self.y_scaler)
        if isinstance(self.head, MixtureHead):
            scale = self._scale(rows)
            mixture = self.head.mixture(params.to(scale))
            target = self.units.target(rows, self.y_scaler, scale.dtype)
            inputs["crps"] = mixture.crps(target.to(scale)) * scale
            inputs["nll"] = self.head.losses(params.to(scale), target.to(scale)) + scale.log()
        return inputs

    def _scale(self, rows: SeriesBatch) -> Tensor:
        """Standard deviation of each row's target, ``(R or 1, 1)`` float64."""
        found = self.y_scaler.std if rows.scale is None else rows.scale[:, :1]
        return found.to(widest_float(found.device)).view(-1, 1)

    # Validation ----------------------------------------------------------------------------------

    @property
    def _judges_by_validation(self) -> bool:
        """Whether the validation windows decide anything beside the best checkpoint."""
        return self.start is not None

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> dict[str, Tensor]:
        """Holds a batch until the share of the start is known, during a fit of a user's file."""
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        if not fitting or not self._judges_by_validation:
            return super().validation_step(batch, batch_idx)
        start, change = self._parts(batch)
        start = torch.zeros_like(change) if start is None else start
        rows = self._rows(batch)
        self._held.append((start, change, rows._replace(x=rows.x[:, -1:], known=None)))
        share = self.blend if self.start is not None else 1.0
        preds = self._point((start + share * change)[:, : self.horizon], rows)
        return {"preds": preds, "target": rows.y}

    def on_validation_epoch_end(self) -> None:
        """Chooses the share of the start, and scores the windows by it."""
        held, self._held = self._held, []
        if held:
            if self.start is not None:
                self.blend.fill_(self._best_blend(held))
            share = self.blend if self.start is not None else 1.0
            self._judge([(start + share * change, rows) for start, change, rows in held])
        super().on_validation_epoch_end()

    def _judge(self, validated: list[tuple[Tensor, SeriesBatch]]) -> None:
        """Scores the parameters of the validation rows."""
        for params, rows in validated:
            output = self._output(params, rows)
            self._accumulate("val", output)
            self.update_metrics(self.val_metrics, output)

    def _best_blend(self, held: list[tuple[Tensor, Tensor, SeriesBatch]]) -> float:
        """Share of what was learned that the validation windows bear out."""
        for start, change, rows in held:
            target = self.units.target(rows, self.y_scaler, self._compute_dtype)
            mask = torch.ones_like(target, dtype=torch.bool) if rows.mask is None else rows.mask
            losses = [
                torch.where(mask, self.head.losses(start + share * change, target), 0).sum(1)
                for share in _BLENDS
            ]
            time = torch.arange(len(target)) if rows.time is None else rows.time
            wide = torch.stack(losses, dim=1).to(widest_float(self.device))
            self.blend_windows.update(time=time.to(mask.device), losses=wide, count=mask.sum(1))
        found = self.blend_windows.compute()
        self.blend_windows.reset()
        order = found["time"].argsort(stable=True)
        return _BLENDS[chosen_share(found["losses"][order], found["count"][order])]


def chosen_share(losses: Tensor, count: Tensor) -> int:
    r"""Number of the share of a correction that held-out windows bear out.

    The least loss is shrunk towards no correction by what its gain g owes to chance,
    :math:`\max(0, 1 - s^2 / 2 g^2)`, with the standard error s of g over blocks of neighbours.

    Args:
        losses: Sum of each window's losses at each share, the first of which is zero, ``(N, Q)``,
            in the order of time.
        count: Number of losses of each window, ``(N,)``.
    """
    mean = losses.sum(0) / count.sum()
    best = int(mean.argmin())
    gain = losses[:, 0] - losses[:, best]
    blocks = zip(gain.tensor_split(_NUM_BLOCKS), count.tensor_split(_NUM_BLOCKS), strict=True)
    means = torch.stack([part.sum() / number.sum() for part, number in blocks if number.sum() > 0])
    if best == 0 or len(means) < 2:
        return best
    error = means.std() / len(means) ** 0.5
    kept = int(best * float((1 - 0.5 * (error / means.mean()) ** 2).clamp(min=0)))
    return kept if mean[kept] <= mean[0] else best
