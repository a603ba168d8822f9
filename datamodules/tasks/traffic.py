r"""Traffic-like series on a graph, with missing cells and the floor of what is still known.

.. math::
    x_{t,i} = \mu + a \sin\frac{2 \pi t}{24} + \frac{a}{2} \sin\frac{2 \pi t}{168} + z_{t,i}, \qquad
    z_t = \rho \hat A z_{t-1} + \sigma \epsilon_t

An hourly season of days and weeks, the same at all nodes, around a vector autoregression on the
graph (:mod:`datamodules.tasks.graph_var`). Cells of windows and of targets are missing at random,
NaN. The season is a linear function of the time's sines and cosines, which are inputs; of the
rest, Kalman's filter knows all that the window's cells tell
(:mod:`datamodules.laws.kalman`): its error on the test targets is the optimum.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphSeriesBatch
from datamodules.errors import InputError
from datamodules.laws import kalman
from datamodules.tasks.graph_var import GraphVARDataModule

_DAY, _WEEK = 24, 168
_SHOWN_STEPS = (3, 6, 12)


class TrafficDataModule(GraphVARDataModule):
    r"""Windows of the series; their inputs are the value, the time and whether a cell is there.

    The inputs of a node are its value, sine and cosine of the time of day and of the week, and 1
    where the value is not missing: those of
    :class:`~datamodules.own.node_series.NodeSeriesDataModule` with all its channels.

    Args:
        num_nodes: Number N of nodes of the ring.
        rho: Persistence :math:`\rho`; in absolute value below 1.
        noise_std: Standard deviation :math:`\sigma` of the noise.
        level: Mean :math:`\mu` of the series.
        season_amplitude: Amplitude a of the season of the day; that of the week is half of it.
        missing_fraction: Share of the cells that are missing.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window.
        num_samples: Training windows.
        num_test: Windows of the test set; validation has a quarter of it.
        batch_size: Windows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    in_features = 6

    def __init__(
        self,
        num_nodes: int = 24,
        rho: float = 0.95,
        noise_std: float = 3.0,
        level: float = 60.0,
        season_amplitude: float = 10.0,
        missing_fraction: float = 0.1,
        horizon: int = 12,
        window: int = 12,
        num_samples: int = 4000,
        num_test: int = 1000,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_nodes=num_nodes,
            rho=rho,
            noise_std=noise_std,
            horizon=horizon,
            window=window,
            num_samples=num_samples,
            num_test=num_test,
            batch_size=batch_size,
            seed=seed,
        )
        if not 0 <= missing_fraction < 1:
            raise InputError(f"missing_fraction must lie in [0, 1), got {missing_fraction}")
        self.level, self.season_amplitude = level, season_amplitude
        self.missing_fraction = missing_fraction

    def season(self, hours: Tensor) -> Tensor:
        """The part of the series that time alone tells, at hours of the week."""
        turn = 2 * torch.pi * hours.double()
        waves = (turn / _DAY).sin() + (turn / _WEEK).sin() / 2
        return self.level + self.season_amplitude * waves

    def _hours(self, split: Split, count: int) -> Tensor:
        """Hour of the week of each step of windows and targets, ``(B, T + H)``."""
        generator = self.generator(f"{split} hours")
        first = torch.randint(_WEEK, (count, 1), generator=generator)
        return (first + torch.arange(self.window + self.horizon)) % _WEEK

    def make_split(self, split: Split) -> GraphSeriesBatch:
        """Windows of one split, each a draw of its own."""
        bare = super().make_split(split)
        hours = self._hours(split, len(bare.x))
        values = torch.cat([bare.x[..., 0], bare.y], dim=1).double()
        values = values + self.season(hours).unsqueeze(2)
        generator = self.generator(f"{split} missing")
        missing = torch.rand(values.shape, generator=generator) < self.missing_fraction
        values = values.masked_fill(missing, torch.nan)
        x, y = values.split([self.window, self.horizon], dim=1)  # type: ignore[no-untyped-call]
        turn = 2 * torch.pi * hours[:, : self.window].double()
        waves = [f(turn / period) for period in (_DAY, _WEEK) for f in (torch.sin, torch.cos)]
        channels = [wave.unsqueeze(2).expand_as(x) for wave in waves]
        inputs = torch.stack([x, *channels, x.isfinite().double()], dim=-1)
        return GraphSeriesBatch(inputs, y, bare.edge_index, None)

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the series; the channels keep their unit."""
        power = 1.25 * self.season_amplitude**2 / 2
        std = (self.covariance.diagonal() + power).sqrt()
        mean = torch.full_like(std, self.level)
        means, stds = torch.zeros(2, self.num_nodes, self.in_features, dtype=torch.float64)
        stds = stds + 1
        means[:, 0], stds[:, 0] = mean, std
        return {"x_scaler": (means.flatten(), stds.flatten()), "y_scaler": (mean, std)}

    @cached_property
    def best(self) -> Tensor:
        """Best forecast of every test window given its cells, ``(B, H, N)`` float64."""
        test = self.split("test")
        hours = self._hours("test", len(test.x))
        past, ahead = self.season(hours).unsqueeze(2).tensor_split([self.window], dim=1)
        noise = self.noise_std**2 * torch.eye(self.num_nodes, dtype=torch.float64)
        window = test.x[..., 0] - past
        mean, _ = kalman.forecasts(window, self.transition, noise, self.covariance, self.horizon)
        return mean + ahead

    def _errors(self, forecast: Tensor, how: str) -> dict[str, Reference]:
        error = forecast - self.split("test").y
        by_step = error.square().nanmean((0, 2))
        found = {
            "test/mse": error.square().nanmean(),
            "test/mae": error.abs().nanmean(),
            "test/mse_last_step": by_step[-1],
        }
        for step in _SHOWN_STEPS:
            if step <= self.horizon:
                found[f"test/mae_step_{step}"] = error[:, step - 1].abs().nanmean()
                found[f"test/rmse_step_{step}"] = by_step[step - 1].sqrt()
        return {name: Reference(value.item(), how) for name, value in found.items()}

    @property
    def optimum(self) -> dict[str, Reference]:
        """Errors of the best forecast on the test targets."""
        return self._errors(self.best, "Kalman's filter on the cells of each window")

    @property
    def baseline(self) -> dict[str, Reference]:
        """Errors of the season alone."""
        hours = self._hours("test", len(self.split("test").x))[:, self.window :]
        season = self.season(hours).unsqueeze(2)
        return self._errors(season, "the season alone")
