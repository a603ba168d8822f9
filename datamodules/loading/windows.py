"""Windows of series, gathered batch by batch: nothing of size rows x window is ever held.

One array holds every row once, sorted by series and time. A window is the row of its first target;
what it observes and what it forecasts are read from a view of the rows around it.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.batches import SeriesBatch
from datamodules.loading.loader import TensorLoader

Array = np.ndarray[Any, Any]


class Origins(NamedTuple):
    """Windows by the row of their first target.

    Attributes:
        row: Row of the first target among the rows of all series, ``(N,)``.
        series: Number of the series, ``(N,)``.
    """

    row: Tensor
    series: Tensor


class SeriesRows:
    """The rows of all series, and windows of them.

    Args:
        values: Observed channels, ``(rows, D)`` float64: M targets, K channels known ahead, others.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        num_known: Number K.
        real: True where a target was in the file, ``(rows, M)``; None where all are.
        center: What to subtract from each channel of a series, ``(S, D)``; None for a single scale.
        scale: What to divide by, likewise.
        naive_error: Mean absolute error of the naive forecast in each series' training rows,
            ``(S,)``, the unit of MASE; of several targets ``(S, M)``.
        numbers: Number that a batch gives each series, ``(S,)``; its place by default.
        num_targets: Number M; a batch of one target has no dimension of it.
    """

    def __init__(
        self,
        values: Array,
        window: int,
        horizon: int,
        num_known: int = 0,
        real: Array | None = None,
        center: Tensor | None = None,
        scale: Tensor | None = None,
        naive_error: Tensor | None = None,
        numbers: Tensor | None = None,
        num_targets: int = 1,
    ) -> None:
        self.window, self.horizon, self.num_known = window, horizon, num_known
        self.num_targets = num_targets
        self.values = torch.from_numpy(values)
        self.real = None if real is None else torch.from_numpy(real)
        self.center, self.scale, self.naive_error = center, scale, naive_error
        self.numbers = numbers

    def gather(self, origins: Origins) -> SeriesBatch:
        """The windows of some origins as a batch in the units of the file."""
        row, series = origins
        known = slice(self.num_targets, self.num_targets + self.num_known)
        ahead = row.unsqueeze(1) + torch.arange(self.horizon)
        windows = self.values.unfold(0, self.window, 1)  # (rows - T + 1, D, T), a view
        return SeriesBatch(
            x=windows[row - self.window].transpose(1, 2).contiguous(),
            y=self.targets(ahead),
            mask=None if self.real is None else self._squeezed(self.real[ahead]),
            known=self.values[:, known][ahead] if self.num_known else None,
            series=series if self.numbers is None else self.numbers[series],
            time=row,
            center=None if self.center is None else self.center[series],
            scale=None if self.scale is None else self.scale[series],
            naive_error=None if self.naive_error is None else self.naive_error[series],
        )

    def targets(self, places: Tensor) -> Tensor:
        """Targets at some rows ``(B, H)``: as many, or ``(B, H, M)`` of several."""
        return self._squeezed(self.values[:, : self.num_targets][places])

    def _squeezed(self, targets: Tensor) -> Tensor:
        return targets[..., 0] if self.num_targets == 1 else targets


class WindowLoader(TensorLoader[Any]):
    """A :class:`TensorLoader` of origins whose batches are the windows there.

    Args:
        data: Origins of the split, ordered by :class:`TensorLoader`'s rules.
        batch_size: Windows per batch, over all ranks.
        rows: Where the windows are read.
        options: Further arguments of :class:`TensorLoader`.
    """

    def __init__(self, data: Origins, batch_size: int, *, rows: SeriesRows, **options: Any) -> None:
        super().__init__(data, batch_size, **options)
        self.source = rows

    def fetch(self, order: Tensor, batch_idx: int) -> SeriesBatch:
        """This rank's share of a batch, gathered from the rows."""
        return self.source.gather(super().fetch(order, batch_idx))
