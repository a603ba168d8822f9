"""Units of a series forecaster: each series' own scale, a power of the target, a linear start."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches import SeriesBatch
from lit_models.layers.standardize import Standardize

Power = tuple[float, float, float]


class ScaledWindows(NamedTuple):
    """Windows in the model's units.

    Attributes:
        x: ``(B, T, D)``.
        known: Channels known ahead, ``(B, H, K)``, or None.
    """

    x: Tensor
    known: Tensor | None


class SeriesUnits(nn.Module):
    r"""Maps windows to units of their series' standard deviation, and forecasts back.

    The target may first be taken to a power (Box and Cox, 1964), :math:`(v^\lambda - 1) / \lambda`
    of the shifted value v, or its logarithm where the exponent is 0. A batch that brings a centre
    and a scale of its own is scaled by them, any other by the training rows'.

    Args:
        power: Exponent, shift and least shifted value; None leaves the target as it is.
        num_targets: Number M of targets of a window, its first channels.
    """

    def __init__(self, power: Power | None = None, num_targets: int = 1) -> None:
        super().__init__()
        self.power = None if power is None else tuple(power)
        self.num_targets = num_targets

    def transform(self, target: Tensor) -> Tensor:
        """The target to its power."""
        if self.power is None:
            return target
        exponent, shift, least = self.power
        value = (target.double() + shift).clamp(min=least)
        return value.log() if exponent == 0 else (value**exponent - 1) / exponent

    def _untransform(self, value: Tensor) -> Tensor:
        if self.power is None:
            return value
        exponent, shift, least = self.power
        if exponent == 0:
            return value.double().exp().clamp(min=least) - shift
        base = (exponent * value.double() + 1).clamp(min=least**exponent)
        return base ** (1 / exponent) - shift

    def windows(self, batch: SeriesBatch, scaler: Standardize, dtype: torch.dtype) -> ScaledWindows:
        """What the network sees."""
        x, known, m = batch.x, batch.known, self.num_targets
        if self.power is not None:
            x = torch.cat([self.transform(x[..., :m]), x[..., m:].double()], dim=-1)
        if batch.center is not None and batch.scale is not None:
            center, scale = batch.center.unsqueeze(1), batch.scale.unsqueeze(1)
            scaled = ((x - center) / scale).to(dtype)
            if known is not None:
                channels = slice(m, m + known.shape[-1])
                known = ((known - center[..., channels]) / scale[..., channels]).to(dtype)
            return ScaledWindows(scaled, known)
        if known is not None:
            room = known.new_zeros(*known.shape[:2], x.shape[-1])
            channels = slice(m, m + known.shape[-1])
            room[..., channels] = known
            known = scaler(room)[..., channels].to(dtype)
        return ScaledWindows(scaler(x).to(dtype), known)

    def target(self, batch: SeriesBatch, scaler: Standardize, dtype: torch.dtype) -> Tensor:
        """The target in the model's units, ``(B, H)``."""
        y = self.transform(batch.y)
        if batch.center is not None and batch.scale is not None:
            return ((y - batch.center[:, :1]) / batch.scale[:, :1]).to(dtype)
        scaled: Tensor = scaler(y)
        return scaled.to(dtype)

    def restore(self, forecast: Tensor, batch: SeriesBatch, scaler: Standardize) -> Tensor:
        """A forecast ``(B, ...)`` in the units of the file."""
        if batch.center is not None and batch.scale is not None:
            shape = (-1, *(1 for _ in forecast.shape[1:]))
            center, scale = batch.center[:, 0].view(shape), batch.scale[:, 0].view(shape)
            return self._untransform(forecast.to(scale.dtype) * scale + center)
        return self._untransform(scaler.inverse(forecast))


def target_rows(batch: SeriesBatch, num_targets: int, mean: Tensor, std: Tensor) -> SeriesBatch:
    """A batch of M targets together as rows of one target each, ``R = B M``.

    Args:
        batch: Targets ``(B, H, M)``; of a single one the batch is returned as it is.
        num_targets: Number M.
        mean: Mean of each channel, ``(D,)``, where the batch has no centre of its own.
        std: Standard deviation, likewise.

    Returns:
        Targets ``(R, H)``, the scale ``(R, 1)`` and the number of each; a window's rows follow each
        other. Nothing reads the windows any more.
    """
    if num_targets == 1:
        return batch
    count = batch.x.shape[0]  # len() would be a constant of an exported model
    center, scale = (
        (like.expand(count, -1) if own is None else own)[:, :num_targets].reshape(-1, 1)
        for own, like in ((batch.center, mean), (batch.scale, std))
    )
    which = torch.arange(num_targets, device=batch.x.device).repeat(count)
    series, time = (
        None if part is None else part.repeat_interleave(num_targets)
        for part in (batch.series, batch.time)
    )
    return SeriesBatch(
        x=_by_target(batch.x[:, -1:, :num_targets]).unsqueeze(-1),
        y=_by_target(batch.y) if batch.y.ndim == 3 else batch.y,
        mask=None if batch.mask is None else _by_target(batch.mask),
        series=None if series is None else series * num_targets + which,
        time=time,
        center=center,
        scale=scale,
        naive_error=None if batch.naive_error is None else batch.naive_error.reshape(-1),
    )


def from_rows(part: Tensor, num_targets: int) -> Tensor:
    """What is said of rows ``(B M, H)`` by window, ``(B, H, M)``; of one target as it is."""
    if num_targets == 1:
        return part
    return part.reshape(part.shape[0] // num_targets, num_targets, *part.shape[1:]).movedim(1, 2)


def _by_target(part: Tensor) -> Tensor:
    return part.movedim(2, 1).flatten(0, 1)


class LinearStart(nn.Module):
    r"""The linear forecast a model starts from, and how much of what it learned is added to it.

    The forecast is :math:`s(x) + b\,(f(x) - s(x))` with the fixed start s, the trained forecast f
    and the share b that validation bears out; at b = 0 it is the start, so that no training ends
    below it on the validation windows.

    Args:
        num_inputs: Number of inputs of the linear forecast.
        horizon: Number H of steps.
        num_targets: Number M of targets of a window.
    """

    weight: Tensor
    bias: Tensor
    std: Tensor
    reach: Tensor
    stretch: Tensor

    def __init__(self, num_inputs: int, horizon: int, num_targets: int = 1) -> None:
        super().__init__()
        self.num_targets = num_targets
        num_outputs = horizon * num_targets
        self.register_buffer("weight", torch.zeros(num_outputs, num_inputs))
        self.register_buffer("bias", torch.zeros(num_outputs))
        self.register_buffer("std", torch.ones(num_outputs))
        # Ones in a checkpoint from before networks read and spoke in these units.
        self.register_buffer("reach", torch.ones(num_targets))
        self.register_buffer("stretch", torch.ones(num_outputs))

    def take(self, start: Any) -> None:
        """Takes weight ``(H M, F)``, bias and error of each step, ``(H M,)``, of a fitted one.

        What a network adds is in units of these errors, and what it reads of a target in those of
        the distances from its last value, ``(M,)``.
        """
        for name in ("weight", "bias", "std", "reach"):
            getattr(self, name).copy_(getattr(start, name))
        self.stretch.copy_(self.std)
        for unit in (self.reach, self.stretch):
            unit[unit == 0] = 1

    def of_rows(self, steps: Tensor, num_rows: int) -> Tensor:
        """A value of each step ``(H M,)`` by row: ``(H,)``, or ``(R, H)`` of several targets."""
        if self.num_targets == 1:
            return steps
        return steps.view(-1, self.num_targets).T.repeat(num_rows // self.num_targets, 1)

    def units(self, change: Tensor) -> Tensor:
        """Units of what a network adds, ``(R, ...)``: ``(H,)`` or ``(R, H)``."""
        return self.of_rows(self.stretch, change.shape[0]).to(change)

    def deviations(self, num_rows: int) -> Tensor:
        """Standard deviation of each step's errors, ``(H,)`` or ``(R, H)``."""
        return self.of_rows(self.std, num_rows)

    def forward(self, windows: ScaledWindows) -> Tensor:
        """Forecast in the model's units, ``(R, H)``, one row a target."""
        m = self.num_targets
        last = windows.x[:, -1:, :m]
        parts = [(windows.x[..., :m] - last).flatten(1), windows.x[..., m:].flatten(1)]
        if windows.known is not None:
            parts.append(windows.known.flatten(1))
        change = torch.nn.functional.linear(torch.cat(parts, dim=1), self.weight, self.bias)
        return _by_target(last + change.reshape(change.shape[0], change.shape[1] // m, m))


class SeriesVectors(nn.Embedding):
    """A learned vector of each series, zeros for one that training did not have.

    Args:
        num_series: Number of series of the training file.
        embedding_dim: Width E of a vector.
    """

    def __init__(self, num_series: int, embedding_dim: int) -> None:
        super().__init__(num_series + 1, embedding_dim, padding_idx=0)

    def beside(self, window: Tensor, series: Tensor | None) -> Tensor:
        """Each step of a window ``(B, T, D)`` with its series' vector, ``(B, T, D + E)``.

        Args:
            window: The window.
            series: Number of each window's series, ``(B,)``; -1 for one that is new.

        Raises:
            ValueError: If the numbers are not given.
        """
        if series is None:
            raise ValueError("a model with embedding_dim needs the number of each window's series")
        vectors = self((series + 1).clamp(min=0)).unsqueeze(1)
        return torch.cat([window, vectors.expand(-1, window.shape[1], -1)], dim=-1)


class KnownSteps(nn.Module):
    """What the known channels of each step add to its forecast, given a window's summary.

    Args:
        num_known: Number K of channels known ahead.
        hidden_size: Width W of the summary.
        num_params: Number P of parameters a step.

    Shape:
        Known ``(B, H, K)`` and summary ``(B, W)`` to ``(B, H, P)``, zero at first.
    """

    def __init__(self, num_known: int, hidden_size: int, num_params: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_known + hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_params)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, known: Tensor, summary: Tensor) -> Tensor:
        """Parameters to add at each step."""
        steps = summary.unsqueeze(1).expand(-1, known.shape[1], -1)
        added: Tensor = self.out(torch.tanh(self.hidden(torch.cat([known, steps], dim=-1))))
        return added
