r"""What takes its best value in closed form, from all training rows, every so many steps.

A noise or a prior precision learned by gradients follows the optimizer's rate, and is wrong where
the rate is too small for the run. Here it is a fixed point, found again as training goes.

:class:`LearnsNoise` holds the noise of a regression: the mean square of what the mean prediction
leaves of the training targets,

.. math:: \sigma_k^2 = \frac1N \sum_n \big(y_{nk} - \mathrm{E}_s f_k(x_n, w_s)\big)^2 .

The evidence bound would add the networks' own variance, :math:`\frac1N \sum_n \mathrm{Var}_s f`.
For an exact posterior that makes up for the fitted weights; one that takes weights for independent,
or units for dropped at random, says much more variance than the fit has used up, and the
intervals come out a third too wide.

Shape letters: B batch, K targets, N rows.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batches import SupervisedBatch
from lit_models.base import LitModule
from lit_models.families.predictive import PredictiveRegressor
from lit_models.layers.densities import GaussianMixture
from lit_models.training.batches import as_batch, batch_type

# Rows that a noise is found from, at most: a hundred networks answer each.
_MAX_ROWS = 5000


class Refreshed(LitModule):
    """Calls :meth:`refresh` with the training rows at the end of epochs.

    Attributes:
        refresh_every: Optimizer steps between two calls; fewer in a run of few steps.
        refresh_after: Share of the run before the first.
    """

    refresh_every: int = 50
    refresh_after: float = 0.1
    last_refresh: Tensor

    def refresh(self, batches: Iterator[Any]) -> None:
        """Takes the values that are best at the current weights."""
        raise NotImplementedError(f"{type(self).__name__} must define refresh()")

    def on_train_epoch_end(self) -> None:
        """Refreshes where it is time to."""
        super().on_train_epoch_end()
        step, total = self.trainer.global_step, self.trainer.estimated_stepping_batches
        every, early = float(self.refresh_every), False
        if total != float("inf"):
            every, early = min(every, total / 40), step < self.refresh_after * total
        if not early and step - int(self.last_refresh) >= every:
            self.last_refresh.fill_(step)
            self.refresh(self._train_batches())

    def _train_batches(self) -> Iterator[Any]:
        """Every training row once: the whole split, also where a batch would be dropped."""
        trainer: Any = self.trainer
        ordered = getattr(trainer.datamodule, "ordered_dataloader", None)
        loader = trainer.train_dataloader if ordered is None else ordered("train")
        for batch in loader:
            given = as_batch(batch, batch_type(type(self)))
            yield trainer.strategy.batch_to_device(given)


class LearnsNoise(Refreshed, PredictiveRegressor):
    """Base of the regressions whose networks share one noise, known or learned.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        noise_std: Standard deviation of the noise, in units of y; None learns it, ``data`` takes
            the one that the datamodule states, and learns it where it states none.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
    """

    noise_variance: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        noise_std: float | Literal["data"] | None,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(in_features, out_features, optimizer, lr_scheduler)
        if noise_std is not None and noise_std != "data" and noise_std <= 0:
            raise ValueError(f"noise_std must be positive, got {noise_std}")
        self.noise_std = noise_std
        self.learns_noise = noise_std is None or noise_std == "data"
        # In units of the targets' variance; small, so that the rows are fitted first.
        variance = torch.full((out_features,), 0.05, dtype=torch.float64)
        self.register_buffer("noise_variance", variance)
        self.register_buffer("last_refresh", torch.tensor(0))

    def take_scale(self, datamodule: Any) -> None:
        """Takes the noise, too, where it is the data's."""
        super().take_scale(datamodule)
        if self.noise_std != "data":
            return
        stated = getattr(datamodule, "noise_std", None)
        self.learns_noise = not isinstance(stated, float | int)
        if isinstance(stated, float | int):
            self.noise_variance.copy_((stated / self.y_scaler.std.double()).square())
        else:
            rank_zero_info(f"{type(datamodule).__name__} states no noise: it is learned")

    def noise_stds(self) -> Tensor:
        """Standard deviation of the noise in the units of the data, ``(K,)``."""
        if self.noise_std is not None and self.noise_std != "data":
            return torch.full_like(self.y_scaler.std, self.noise_std)
        return self.noise_variance.to(self.y_scaler.std).sqrt() * self.y_scaler.std

    def residuals(self, batch: SupervisedBatch) -> Tensor:
        """What the prediction leaves of the targets, in units of the data, ``(..., B, K)``."""
        return batch.y - self.predictive(batch.x).mean

    @torch.no_grad()
    def refresh(self, batches: Iterator[SupervisedBatch]) -> None:
        """Moves the noise halfway to the mean square of what the prediction leaves."""
        if self.learns_noise:
            found = self.mean_square(batches).clamp(min=1e-8)
            self.noise_variance.mul_(0.5).add_(found.to(self.noise_variance), alpha=0.5)

    def mean_square(self, batches: Iterator[SupervisedBatch]) -> Tensor:
        """Mean square of the residuals in units of the targets' variance, ``(K,)``."""
        std = self.y_scaler.std
        squares, rows = torch.zeros_like(std), torch.zeros_like(std)
        for batch in self.enough(batches):
            left = (self.residuals(batch) / std).square().flatten(0, -2)
            squares += left.mean(0) * len(batch.x)
            rows += len(batch.x)
        squares, rows = self._sum_over_ranks(torch.stack([squares, rows])).unbind()
        found: Tensor = squares / rows
        return found

    def enough(self, batches: Iterator[SupervisedBatch]) -> Iterator[SupervisedBatch]:
        """The first batches that hold as many rows as a noise is found from."""
        rows, ranks = 0, 1 if self._trainer is None else self._trainer.world_size
        for batch in batches:
            yield batch
            rows += len(batch.x)
            if rows * ranks >= _MAX_ROWS:
                return

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the noise of runs in which it was a parameter."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        former = state.pop("log_noise_std", None)
        if "log_tau" in state:
            former = -0.5 * state.pop("log_tau")
        if "noise_variance" not in state:
            state["last_refresh"] = self.last_refresh
            state["noise_variance"] = (
                self.noise_variance if former is None else (2 * former.double()).exp()
            )

    def mixture(self, outputs: Tensor) -> GaussianMixture:
        """Outputs ``(S, B, K)`` as densities in the units of the data."""
        return GaussianMixture(self.y_scaler.inverse(outputs), self.noise_stds())
