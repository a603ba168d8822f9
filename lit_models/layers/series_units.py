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
    """

    def __init__(self, power: Power | None = None) -> None:
        super().__init__()
        self.power = None if power is None else tuple(power)

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
        x, known = batch.x, batch.known
        if self.power is not None:
            x = torch.cat([self.transform(x[..., :1]), x[..., 1:].double()], dim=-1)
        if batch.center is not None and batch.scale is not None:
            center, scale = batch.center.unsqueeze(1), batch.scale.unsqueeze(1)
            scaled = ((x - center) / scale).to(dtype)
            if known is not None:
                channels = slice(1, 1 + known.shape[-1])
                known = ((known - center[..., channels]) / scale[..., channels]).to(dtype)
            return ScaledWindows(scaled, known)
        if known is not None:
            room = known.new_zeros(*known.shape[:2], x.shape[-1])
            channels = slice(1, 1 + known.shape[-1])
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


class LinearStart(nn.Module):
    r"""The linear forecast a model starts from, and how much of what it learned is added to it.

    The forecast is :math:`s(x) + b\,(f(x) - s(x))` with the fixed start s, the trained forecast f
    and the share b that validates best; at b = 0 it is the start, so that no training ends below
    it on the validation windows.

    Args:
        num_inputs: Number of inputs of the linear forecast.
        horizon: Number H of steps.
    """

    weight: Tensor
    bias: Tensor
    std: Tensor

    def __init__(self, num_inputs: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(horizon, num_inputs))
        self.register_buffer("bias", torch.zeros(horizon))
        self.register_buffer("std", torch.ones(horizon))

    def take(self, start: Any) -> None:
        """Takes weight ``(H, F)``, bias and error of each step, ``(H,)``, of a fitted one."""
        for name in ("weight", "bias", "std"):
            getattr(self, name).copy_(getattr(start, name))

    def forward(self, windows: ScaledWindows) -> Tensor:
        """Forecast in the model's units, ``(B, H)``."""
        last = windows.x[:, -1, :1]
        parts = [windows.x[..., 0] - last, windows.x[..., 1:].flatten(1)]
        if windows.known is not None:
            parts.append(windows.known.flatten(1))
        return last + torch.nn.functional.linear(torch.cat(parts, dim=1), self.weight, self.bias)
