"""Errors of forecasts at nodes, of the steps ahead that traffic forecasting reports."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ForecastErrors(Metric):
    """Mean squared and mean absolute error of the known targets, and of chosen steps ahead.

    Of a chosen step k also ``mae_step_k``, ``rmse_step_k`` and ``mape_step_k``, the mean absolute
    error in per cent of the targets that are not zero (Li et al., 2018).

    Args:
        horizon: Number H of steps ahead.
        steps: Steps to report, from 1; those beyond the horizon are left out.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    sums: Tensor

    def __init__(self, horizon: int, steps: Sequence[int] = ()) -> None:
        super().__init__()
        self.steps = [step for step in steps if step <= horizon]
        zeros = torch.zeros(horizon, 5, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            preds: Forecasts, ``(B, H, N)``.
            target: What came, ``(B, H, N)``; NaN where nobody knows.
        """
        known = target.isfinite()
        error = torch.where(known, preds - target, 0.0).to(self.sums.dtype)
        nonzero = known & (target != 0)
        share = torch.where(nonzero, error / torch.where(nonzero, target, 1.0), 0.0)
        parts = [known, error.square(), error.abs(), nonzero, share.abs()]
        self.sums += torch.stack([part.to(error.dtype).sum((0, 2)) for part in parts], dim=1)

    def compute(self) -> dict[str, Tensor]:
        """The errors, in the units of the data."""
        count, squared, absolute, nonzero, share = self.sums.unbind(1)
        found = {
            "mse": squared.sum() / count.sum(),
            "mae": absolute.sum() / count.sum(),
            "mse_last_step": squared[-1] / count[-1],
        }
        for step in self.steps:
            k = step - 1
            found[f"mae_step_{step}"] = absolute[k] / count[k]
            found[f"rmse_step_{step}"] = (squared[k] / count[k]).sqrt()
            found[f"mape_step_{step}"] = 100 * share[k] / nonzero[k]
        return found
