r"""Cheap forecasts that a model of a user's series must beat, fitted and scored in blocks.

The ridge regression forecasts the distances from the last value, in units of each series' training
rows, from the window and from what is known ahead. It needs the moments of its inputs alone, which
are summed block by block; one eigendecomposition
:math:`X^T X = V \Lambda V^T` then serves every penalty,
:math:`W(\alpha) = V (\Lambda + \alpha)^{-1} V^T X^T Y`. A model may start from weights whose
differences from step to step are penalised in their place (Shiller, 1973).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from scipy import special
from torch import Tensor

from datamodules.batches import SeriesBatch
from datamodules.loading.windows import Origins, SeriesRows

PENALTIES = tuple(10.0**k for k in range(-3, 5))
# Differences of neighbouring weights are small, and penalised harder.
_SMOOTH_PENALTIES = tuple(10.0**k for k in range(-3, 8))
_BLOCK = 4096
# By so much must smooth weights beat others, or their gain is chance.
_SMOOTH_PRICE = 0.995
Power = tuple[float, float, float]


class LinearStart(NamedTuple):
    """A linear forecast of standardised distances from the last value.

    Attributes:
        weight: ``(H M, F)``; its inputs are the window's M targets less their last values,
            ``(T M,)``, the other channels, ``(T (D - M),)``, and what is known ahead, ``(H K,)``.
        bias: ``(H M,)``.
        std: Root mean squared training error of each step, ``(H M,)``.
        reach: Root mean squared distance of the windows' values from their last, ``(M,)``.
    """

    weight: Tensor
    bias: Tensor
    std: Tensor
    reach: Tensor


class LinearFits(NamedTuple):
    """Linear forecasts of the same windows.

    Attributes:
        ridge: The ridge regression, a rival.
        start: What a model starts from: the same, or one of smooth weights.
    """

    ridge: LinearStart
    start: LinearStart


class Scaler(NamedTuple):
    """Units of the model: a power of the target, then one scale of all series or one of each.

    Attributes:
        center: Mean of each channel, ``(1, D)``, used where a batch has none of its own.
        scale: Standard deviation, likewise.
        power: Exponent, shift and least value of the Box-Cox transform; None for none.
        num_targets: Number M of targets that a window forecasts.
    """

    center: Tensor
    scale: Tensor
    power: Power | None = None
    num_targets: int = 1

    def transform(self, target: Tensor) -> Tensor:
        """The target to a power."""
        return target if self.power is None else box_cox(target, self.power)

    def of(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each row's channels, ``(B or 1, D)``."""
        if batch.center is None or batch.scale is None:
            return self.center, self.scale
        return batch.center, batch.scale

    def inputs(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """What the linear forecast sees, ``(B, F)``, and the last values, ``(B, M)``."""
        center, scale = (part.unsqueeze(1) for part in self.of(batch))
        m = self.num_targets
        target = (self.transform(batch.x[..., :m]) - center[..., :m]) / scale[..., :m]
        rest = (batch.x[..., m:] - center[..., m:]) / scale[..., m:]
        last = target[:, -1]
        parts = [(target - last.unsqueeze(1)).flatten(1), rest.flatten(1)]
        if batch.known is not None:
            known = slice(m, m + batch.known.shape[2])
            parts.append(((batch.known - center[..., known]) / scale[..., known]).flatten(1))
        return torch.cat(parts, dim=1), last

    def targets(self, batch: SeriesBatch) -> Tensor:
        """Standardised targets, ``(B, H, M)``."""
        center, scale = (part[:, None, : self.num_targets] for part in self.of(batch))
        y = self.transform(batch.y).view(*batch.y.shape[:2], self.num_targets)
        return (y - center) / scale

    def restore(self, forecast: Tensor, batch: SeriesBatch) -> Tensor:
        """A standardised forecast ``(B, H, M)`` in the units of the file, shaped as ``batch.y``."""
        center, scale = (part[:, None, : self.num_targets] for part in self.of(batch))
        values = (forecast * scale + center).view(batch.y.shape)
        return values if self.power is None else inverse_box_cox(values, self.power)


def box_cox(values: Tensor, power: Power) -> Tensor:
    """Box-Cox transform of shifted values, which end at the least one."""
    exponent, shift, least = power
    return torch.from_numpy(special.boxcox((values + shift).clamp(min=least).numpy(), exponent))


def inverse_box_cox(values: Tensor, power: Power) -> Tensor:
    """Values of which :func:`box_cox` makes these, the least one at least."""
    exponent, shift, least = power
    edge = special.boxcox(least, exponent)
    return torch.from_numpy(special.inv_boxcox(values.clamp(min=edge).numpy(), exponent)) - shift


def blocks(rows: SeriesRows, origins: Origins) -> Iterator[SeriesBatch]:
    """All windows, a few thousand at a time; of none nothing."""
    if not len(origins.row):
        return
    for row, series in zip(*(torch.split(part, _BLOCK) for part in origins), strict=True):
        yield rows.gather(Origins(row, series))


class _Moments:
    """Sums of products of inputs and targets over complete windows."""

    def __init__(self, rows: SeriesRows, origins: Origins, scaler: Scaler) -> None:
        self.count, self.xx = 0, torch.zeros(0)
        self.window = rows.window, scaler.num_targets
        for batch in blocks(rows, origins):
            inputs, last = scaler.inputs(batch)
            targets = (scaler.targets(batch) - last.unsqueeze(1)).flatten(1)
            if batch.mask is not None:
                complete = batch.mask.flatten(1).all(1)
                inputs, targets = inputs[complete], targets[complete]
            if self.count == 0:
                width, num_targets = inputs.shape[1], targets.shape[1]
                self.x, self.y = inputs.new_zeros(width), inputs.new_zeros(num_targets)
                self.xx = inputs.new_zeros(width, width)
                self.xy = inputs.new_zeros(width, num_targets)
                self.yy = inputs.new_zeros(num_targets)
            self.count += len(inputs)
            self.x += inputs.sum(0)
            self.y += targets.sum(0)
            self.xx.addmm_(inputs.T, inputs)
            self.xy.addmm_(inputs.T, targets)
            self.yy += targets.square().sum(0)

    def reach(self) -> Tensor:
        """Root mean squared distance of the windows' values from their last, ``(M,)``."""
        num_steps, num_targets = self.window
        squares = self.xx.diagonal()[: num_steps * num_targets].view(num_steps, num_targets)
        return (squares.mean(0) / self.count).sqrt()

    def errors(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Mean squared error of each step of a linear forecast, ``(H,)``."""
        fit = (weight @ self.xx * weight).sum(1) + bias * (2 * weight @ self.x + self.count * bias)
        cross = (weight * self.xy.T).sum(1) + bias * self.y
        return ((self.yy - 2 * cross + fit) / max(self.count, 1)).clamp(min=0)


def fit_ridge(rows: SeriesRows, train: Origins, val: Origins, scaler: Scaler) -> LinearStart | None:
    """The ridge regression whose penalty validation chooses; None without a complete window."""
    moments, held_out = _Moments(rows, train, scaler), _Moments(rows, val, scaler)
    return _best(moments, held_out)[1] if moments.count else None


def fit_linear(rows: SeriesRows, train: Origins, val: Origins, scaler: Scaler) -> LinearFits | None:
    """The ridge regression, and what a model starts from; None without a complete window.

    That is the regression itself, or one of smooth weights where validation finds it better by
    more than the price of a second choice.
    """
    moments, held_out = _Moments(rows, train, scaler), _Moments(rows, val, scaler)
    if not moments.count:
        return None
    loss, ridge = _best(moments, held_out)
    widths = [scaler.num_targets, rows.values.shape[1] - scaler.num_targets]
    sums = partial(_sums_over_time, window=rows.window, widths=widths)
    smooth_loss, smooth = _best(moments, held_out, _SMOOTH_PENALTIES, sums)
    better = held_out.count and smooth_loss < _SMOOTH_PRICE * loss
    return LinearFits(ridge, smooth if better else ridge)


def _best(
    moments: _Moments,
    held_out: _Moments,
    penalties: Sequence[float] = PENALTIES,
    basis: Callable[[Tensor], Tensor] = lambda part: part,
) -> tuple[float, LinearStart]:
    """Error and fit of the penalty that is best on the held-out windows, if there are any.

    Args:
        moments: Of the training windows.
        held_out: Of the validation windows.
        penalties: Those to try.
        basis: What the transpose of B makes of a matrix ``(F, ...)``: the weights are B times those
            that are penalised.
    """
    n, judge = moments.count, held_out if held_out.count else moments
    covariance = moments.xx - torch.outer(moments.x, moments.x) / n
    cross = moments.xy - torch.outer(moments.x, moments.y) / n
    values, vectors = torch.linalg.eigh(basis(basis(covariance).T))
    rotated, found = vectors.T @ basis(cross), []
    vectors = basis(torch.eye(len(values), dtype=values.dtype)).T @ vectors
    for penalty in penalties:
        weight = (vectors @ (rotated / (values.clamp(min=0) + penalty).unsqueeze(1))).T
        bias = (moments.y - weight @ moments.x) / n
        found.append((judge.errors(weight, bias).mean().item(), weight, bias))
    loss, weight, bias = min(found, key=lambda fit: fit[0])
    std = moments.errors(weight, bias).sqrt()
    return loss, LinearStart(weight, bias, std, moments.reach())


def _sums_over_time(part: Tensor, window: int, widths: Sequence[int]) -> Tensor:
    """Sums rows ``(F, ...)`` from each step of the window to its last, channel by channel.

    The penalty is then one on the differences of neighbouring weights, and on the oldest.
    """
    sizes = [window * width for width in widths]
    *channels, known = torch.split(part, [*sizes, len(part) - sum(sizes)])
    steps = [rows.reshape(window, -1).flip(0).cumsum(0).flip(0) for rows in channels]
    return torch.cat([*(s.view(r.shape) for s, r in zip(steps, channels, strict=True)), known])


class Errors:
    """Scores of a forecast: mean squared, absolute, symmetric percentage and scaled error."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = torch.zeros(1, dtype=torch.float64)

    def add(self, forecast: Tensor, batch: SeriesBatch) -> None:
        """Adds a batch of forecasts in the units of the file."""
        error = (forecast - batch.y).abs()
        both = (forecast.abs() + batch.y.abs()).clamp(min=torch.finfo(torch.float64).tiny)
        scores = {"mse": error.square(), "mae": error, "smape": 200 * error / both}
        if batch.naive_error is not None:
            scores["mase"] = error / batch.naive_error.unsqueeze(1)
        mask = torch.ones_like(error, dtype=torch.bool) if batch.mask is None else batch.mask
        for name, score in scores.items():
            self.sums[name] = self.sums.get(name, 0) + torch.where(mask, score, 0).sum(0)
        self.count = self.count + mask.sum(0)

    def means(self) -> dict[str, float]:
        """Mean of each score by name."""
        count = self.count.sum().clamp(min=1)
        return {name: (total.sum() / count).item() for name, total in self.sums.items()}

    def per_step(self) -> Tensor:
        """Mean squared error of each step, ``(H,)``."""
        error, count = self.sums["mse"], self.count.clamp(min=1)
        found: Tensor = error / count if error.ndim == 1 else error.sum(1) / count.sum(1)
        return found


def rival_errors(
    rows: SeriesRows,
    test: Origins,
    scaler: Scaler,
    ridge: LinearStart | None,
    season: int,
) -> dict[str, Errors]:
    """Errors of the last value, the last season and the ridge regression, by their names."""
    ahead = torch.arange(rows.horizon)
    steps = ahead % season - season if season else ahead
    forecasts: dict[str, Callable[[SeriesBatch], Any]] = {
        "last value": lambda batch: (
            batch.x[:, -1:, : rows.num_targets].expand(-1, rows.horizon, -1).reshape(batch.y.shape)
        )
    }
    if season:
        forecasts["same step of the last season"] = lambda batch: rows.targets(
            batch.time.unsqueeze(1) + steps  # type: ignore[union-attr]
        )
    if ridge is not None:
        forecasts["ridge regression"] = lambda batch: linear_forecast(ridge, batch, scaler)
    errors = {name: Errors() for name in forecasts}
    for batch in blocks(rows, test):
        for name, forecast in forecasts.items():
            errors[name].add(forecast(batch), batch)
    return errors


def linear_forecast(start: LinearStart, batch: SeriesBatch, scaler: Scaler) -> Tensor:
    """A linear forecast in the units of the file, shaped as ``batch.y``."""
    inputs, last = scaler.inputs(batch)
    change = (inputs @ start.weight.T + start.bias).view(len(last), -1, scaler.num_targets)
    return scaler.restore(last.unsqueeze(1) + change, batch)
