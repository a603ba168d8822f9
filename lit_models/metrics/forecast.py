"""Scores of forecasts: sums in float64 over the measured steps of all windows and ranks."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_models.layers.forecast_heads import QUANTILES, pinball


class ForecastMetric(Metric):
    """Mean of a score over the measured steps; a subclass says what one step scores."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, scores: Tensor, mask: Tensor | None) -> None:
        """Adds the scores of a batch, ``(B, H)``."""
        if mask is not None:
            scores = scores[mask]
        self.total += scores.to(self.total.dtype).sum()
        self.count += scores.numel()

    def compute(self) -> Tensor:
        """Mean over all measured steps."""
        return self.total / self.count


class ForecastMSE(ForecastMetric):
    """Mean squared error, in squared units of the target."""

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Adds forecasts and targets, ``(B, H)``."""
        self.add((preds.to(self.total.dtype) - target.to(self.total.dtype)).square(), mask)


class ForecastMAE(ForecastMetric):
    """Mean absolute error, in units of the target."""

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Adds forecasts and targets, ``(B, H)``."""
        self.add((preds.to(self.total.dtype) - target.to(self.total.dtype)).abs(), mask)


class ForecastSMAPE(ForecastMetric):
    """Symmetric mean absolute percentage error of the M4 competition, in percent up to 200."""

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Adds forecasts and targets, ``(B, H)``."""
        preds, target = preds.to(self.total.dtype), target.to(self.total.dtype)
        both = (preds.abs() + target.abs()).clamp(min=torch.finfo(torch.float64).tiny)
        self.add(200 * (preds - target).abs() / both, mask)


class ForecastMASE(ForecastMetric):
    """Mean absolute scaled error (Hyndman and Koehler, 2006): 1 is the naive forecast's."""

    def update(
        self,
        preds: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        naive_error: Tensor | None = None,
    ) -> None:
        """Adds forecasts and targets, ``(B, H)``, with the naive error of each series, ``(B,)``."""
        if naive_error is not None:
            error = (preds.to(self.total.dtype) - target.to(self.total.dtype)).abs()
            self.add(error / naive_error.to(self.total.dtype).unsqueeze(1), mask)


class ForecastPinball(ForecastMetric):
    """Mean pinball loss over the quantiles, in units of the target."""

    def update(
        self,
        preds: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        quantiles: Tensor | None = None,
    ) -> None:
        """Adds targets ``(B, H)`` and their quantiles ``(B, H, Q)``."""
        assert quantiles is not None
        levels = torch.tensor(QUANTILES, dtype=self.total.dtype, device=target.device)
        error = target.to(self.total.dtype).unsqueeze(-1) - quantiles.to(self.total.dtype)
        self.add(pinball(error, levels).mean(-1), mask)


class ForecastScore(ForecastMetric):
    """Mean of a score that the model computed.

    Args:
        name: Its name among the inputs of the metrics.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def update(
        self,
        preds: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        crps: Tensor | None = None,
        nll: Tensor | None = None,
    ) -> None:
        """Adds a score ``(B, H)``."""
        scores = {"crps": crps, "nll": nll}[self.name]
        assert scores is not None
        self.add(scores, mask)


class Windows(Metric):
    """Keeps what a later computation needs of every window of all ranks.

    Args:
        names: Names of the tensors, each ``(B, ...)``.
    """

    full_state_update = False

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, **parts: Tensor) -> None:
        """Adds a batch."""
        for name in self.names:
            getattr(self, name).append(parts[name])

    def compute(self) -> dict[str, Any]:
        """The tensors of all windows."""
        return {name: dim_zero_cat(getattr(self, name)) for name in self.names}
